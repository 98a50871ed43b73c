"""Reads trees of DCASE Task 2, 2020 to 2026: <root>/<machine>/<split>/<name>.

2020 names clips `normal_id_00_00000000.wav`; from 2021 on
`section_00_source_train_normal_0000_<attributes>.wav`, with attributes that may be empty after their underscore.
In 2021 the test split is two folders, source_test and target_test. Names of evaluation clips do not contain the
condition, and mostly not the domain; the ground truth of 2022 to 2024 names them without their split,
`section_00_0000.wav`. 2025 adds `supplemental/`; parts of its names are optional.
"""

import re
from dataclasses import dataclass

from training.data.catalog import Clip, DataError
from training.data.layouts.collection import Collection, audio_files, of_splits

_ID = re.compile(r"(?:(?P<condition>normal|anomaly)_)?id_(?P<section>\d+)_(?P<number>\d+)")
_SECTION = re.compile(
    r"section_(?P<section>\d+)"
    r"(?:_(?P<domain>source|target|noise))?"
    r"(?:_(?P<split>train|test|supplemental))?"
    r"(?:_(?P<condition>normal|anomaly))?"
    r"(?:_(?P<kind>clean|machine|noise))?"
    r"_(?P<number>\d+)"
    r"(?:_(?P<attributes>.*))?"
)
_FOLDERS = {
    "train": "train",
    "test": "test",
    "source_test": "test",
    "target_test": "test",
    "supplemental": "supplemental",
}


@dataclass(frozen=True)
class DcaseName:
    """Parts of a clip's name; empty if the name does not have a part."""

    section: str
    number: str
    domain: str = ""
    split: str = ""
    condition: str = ""
    attributes: str = ""

    @classmethod
    def parse(cls, stem: str) -> "DcaseName | None":
        """Parse a file name without its suffix; return None if it has no form of any year."""
        found = _ID.fullmatch(stem) or _SECTION.fullmatch(stem)
        if found is None:
            return None
        parts = {key: value or "" for key, value in found.groupdict().items()}
        if parts.pop("kind", "") == "noise":
            parts["domain"] = "noise"
        return cls(**parts)


def read_dcase(collection: Collection) -> list[Clip]:
    """Read the clips of a tree, labeled by machine; by default only `train`, where all clips are normal.

    Clips of a `supplemental` folder with noise only have the domain `noise` and the label `<machine>-noise`.

    Raises:
        DataError: no such tree, a name of unknown form, or a split or domain without clips.
    """
    root = collection.root
    clips = []
    for path in audio_files(root):
        inside = path.relative_to(root)
        if len(inside.parts) != 3 or inside.parts[1] not in _FOLDERS:
            raise DataError(f"{path} is not at <machine>/<split>/<name> below {root}; splits: {', '.join(_FOLDERS)}.")
        machine, folder, _ = inside.parts
        name = DcaseName.parse(path.stem)
        if name is None:
            raise DataError(f"{path} has a name of no year of DCASE Task 2 from 2020 to 2026.")
        domain = name.domain or folder.partition("_test")[0] * folder.endswith("_test")
        label = f"{machine}-noise" if domain == "noise" else machine
        clips.append(
            collection.clip(
                path,
                inside.as_posix(),
                (label,),
                split=_FOLDERS[folder],
                domain=domain,
                condition=name.condition,
            )
        )
    chosen = of_splits(collection, clips, collection.splits or ("train",))
    return _of_domains(collection, chosen)


def _of_domains(collection: Collection, clips: list[Clip]) -> list[Clip]:
    present = sorted({clip.domain or "(unknown)" for clip in clips})
    absent = [domain for domain in collection.domains if domain not in present]
    if absent:
        raise DataError(f"{collection.path} has no domain {', '.join(absent)}; it has {', '.join(present)}.")
    return [clip for clip in clips if not collection.domains or clip.domain in collection.domains]
