"""Reads machines: train and test clips of a tree in the DCASE Task 2 layout, or in a plain one."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from training.data.catalog import Clip, DataError
from training.data.layouts.collection import Collection, audio_files
from training.data.layouts.dcase import DcaseName, read_dcase
from training.evaluation.labels import Key, Labels

Form = Literal["2020", "2021", "2022", "plain"]
"""Layout of a tree, which determines the metrics; 2022 stands for all years from 2022 on."""

RECORDING = re.compile(r"(?:^|_)rec_([^_]+)")  # recording of a clip, if it is in the name
_CONDITIONS = ("normal", "anomaly")


@dataclass(frozen=True)
class JudgedClip:
    """A clip with domain and condition."""

    path: Path
    domain: Domain
    anomalous: bool
    recording: str  # clips of one recording are not independent
    name: str = ""  # path below the folder of its split

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class JudgedMachine:
    """A bank and its test clips: a machine, or one of its sections."""

    name: str
    train: tuple[JudgedClip, ...]
    test: tuple[JudgedClip, ...]
    folder: str = ""  # folder of the machine in the tree, DCASE's machine type
    section: str = "00"  # section; machine id in 2020
    form: Form = "2022"

    @cached_property
    def anomalous(self) -> NDArray[np.bool_]:
        """Flags of anomalous test clips, `(test clips,)`."""
        return np.array([clip.anomalous for clip in self.test], dtype=bool)

    @cached_property
    def target(self) -> NDArray[np.bool_]:
        """Flags of test clips of the target domain, `(test clips,)`."""
        return np.array([clip.domain is Domain.TARGET for clip in self.test], dtype=bool)

    def check(self, root: Path) -> "JudgedMachine":
        """Return the machine. Raises `DataError` if it has no bank, or not both normal and anomalous test clips."""
        wanted: Sequence[tuple[bool, str]] = (
            (len(self.train) > 0, "no train clip"),
            (not any(clip.anomalous for clip in self.train), "an anomalous train clip"),
            (len(self.test) > 0, "no test clip"),
            (bool(self.anomalous.any()), "no anomalous test clip"),
            (not self.anomalous.all(), "no normal test clip"),
        )
        for holds, what in wanted:
            if not holds:
                raise DataError(f"The machine {self.name} in {root} has {what}.")
        return self


def longest_seconds(machine: JudgedMachine) -> float:
    """Return the duration of the longest train clip, in seconds. Clips whose header cannot be read do not count."""
    found = [0.0]
    for clip in machine.train:
        try:
            found.append(soundfile.info(clip.path).duration)
        except soundfile.LibsndfileError:
            continue
    return max(found)


@dataclass(frozen=True)
class _Placed:
    """A clip with its machine, section and split."""

    machine: str
    section: str
    form: Form
    split: str
    clip: JudgedClip


def read_tree(root: Path, labels: Labels | None = None) -> list[JudgedMachine]:
    """Read all machines of a tree: `<machine>/<split>/<clip>`, or plain `<machine>/<split>/{normal,anomaly}/<clip>`.

    A machine with several sections (2020 to 2022) is one machine per section, as the challenge scores them. If
    names have no domain (2020, plain), all clips are in the source domain.

    Args:
        root: folder of the tree.
        labels: labels of test clips without a condition in their names.

    Raises:
        DataError: no such tree, a name of unknown form, a machine without train clips or without normal or anomalous
            test clips, a test clip without condition or domain, or a label of a missing clip.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder of machines at {root}.")
    plain = any(path.parent.name in _CONDITIONS for path in audio_files(root))
    placed = list(_plain(root) if plain else _dcase(root, labels))
    forms = sorted(
        {one.form for one in placed if one.split == "test"}
    )  # train clips of 2021 are named as those of 2022
    if len(forms) > 1:
        raise DataError(f"{root} has machines of the layouts {' and '.join(forms)}. Evaluate each layout separately.")
    found: dict[tuple[str, str], dict[str, list[JudgedClip]]] = {}
    for one in placed:
        splits = found.setdefault((one.machine, one.section), {"train": [], "test": []})
        splits[one.split].append(one.clip)
    sections = {machine: sum(other == machine for other, _ in found) for machine, _ in found}
    machines = []
    for (machine, section), splits in sorted(found.items()):
        title = machine if sections[machine] == 1 else f"{machine}/section_{section}"
        clips = tuple(splits["train"]), tuple(splits["test"])
        machines.append(JudgedMachine(title, *clips, machine, section, next(iter(forms), "2022")).check(root))
    return machines


def _plain(root: Path) -> Iterable[_Placed]:
    for path in audio_files(root):
        inside = path.relative_to(root)
        machine, split, *below = inside.parts if len(inside.parts) > 2 else ("", "", "")
        healthy = split == "train" and len(below) == 1
        if split not in ("train", "test") or not (healthy or (len(below) == 2 and below[0] in _CONDITIONS)):
            raise DataError(f"{path} is not at <machine>/<train or test>/<normal or anomaly>/<clip> below {root}.")
        condition = "normal" if healthy else below[0]
        name = inside.relative_to(Path(machine, split)).as_posix()
        clip = _judged(path, name, Domain.SOURCE, condition, path.stem, own=name)
        yield _Placed(machine, "00", "plain", split, clip)


def _dcase(root: Path, labels: Labels | None) -> Iterable[_Placed]:
    clips = []
    for clip in read_dcase(Collection(layout="dcase", path=str(root), splits=("train", "test"))):
        place = PurePosixPath(clip.name)  # its path may be the target of a link
        name = DcaseName.parse(place.stem)
        assert name is not None  # read_dcase has parsed it
        if clip.domain != "noise":
            clips.append((clip, place, name))
    if labels is not None:
        labels.check(Key.of(clip.label, name) for clip, _, name in clips if clip.split == "test")
    for clip, place, name in clips:
        condition, domain = _label(clip, name, labels)
        own = f"{name.number} {name.attributes}"
        judged = _judged(clip.path, place.name, Domain(domain), condition, name.attributes, own=own)
        yield _Placed(clip.label, name.section, _form(place), clip.split, judged)


def _label(clip: Clip, name: DcaseName, labels: Labels | None) -> tuple[str, str]:
    """Return condition and domain of a clip, from its name or else from its label."""
    if clip.split == "train":
        return clip.condition or "normal", clip.domain or Domain.SOURCE
    if clip.condition:
        return clip.condition, clip.domain or Domain.SOURCE
    label = labels.by_clip.get(Key.of(clip.label, name)) if labels else None
    if label is None:
        where = f"{labels.path} has no label for it" if labels else "add labels"
        raise DataError(f"The name of {clip.path} does not contain its condition, normal or anomaly; {where}.")
    domain = clip.domain or label.domain
    if not domain:
        raise DataError(f"Neither the name of {clip.path} nor its label has a domain.")
    return label.condition, domain


def _form(place: PurePosixPath) -> Form:
    if place.parent.name.endswith("_test"):
        return "2021"
    return "2022" if place.name.startswith("section_") else "2020"


def _judged(path: Path, name: str, domain: Domain, condition: str, stem: str, *, own: str) -> JudgedClip:
    match = RECORDING.search(stem)
    # Normal and anomalous recordings are different ones: the machine has one condition in a recording.
    recording = f"recording {match.group(1)}" if match else f"clip {own}"
    return JudgedClip(path, domain, condition == "anomaly", f"{domain} {condition} {recording}", name)
