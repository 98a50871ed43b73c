"""Machines to be judged: train and test clips of a tree in the DCASE Task 2 layout, or in a plain one."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from training.data.catalog import Clip, DataError
from training.data.layouts.collection import Collection, audio_files
from training.data.layouts.dcase import DcaseName, read_dcase
from training.evaluation.labels import Key, Labels

Form = Literal["2020", "2021", "2022", "plain"]
"""How a tree is laid out, and with it how it is judged; 2022 stands for all years from 2022 on."""

RECORDING = re.compile(r"(?:^|_)rec_([^_]+)")  # which recording a clip was cut from, where the name tells
_CONDITIONS = ("normal", "anomaly")


@dataclass(frozen=True)
class JudgedClip:
    """A clip whose domain and condition are known."""

    path: Path
    domain: Domain
    anomalous: bool
    recording: str  # clips of one recording are not independent
    name: str = ""  # below the folder of its split

    @cached_property
    def sha256(self) -> str:
        """Hash of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class JudgedMachine:
    """One bank and the clips held against it: a machine, or one section of it where there are several."""

    name: str
    train: tuple[JudgedClip, ...]
    test: tuple[JudgedClip, ...]
    folder: str = ""  # the machine's folder in the tree, DCASE's machine type
    section: str = "00"  # in 2020 the machine id
    form: Form = "2022"

    @cached_property
    def anomalous(self) -> NDArray[np.bool_]:
        """Which test clips are anomalous, `(test clips,)`."""
        return np.array([clip.anomalous for clip in self.test], dtype=bool)

    @cached_property
    def target(self) -> NDArray[np.bool_]:
        """Which test clips are of the target domain, `(test clips,)`."""
        return np.array([clip.domain is Domain.TARGET for clip in self.test], dtype=bool)

    def check(self, root: Path) -> "JudgedMachine":
        """The machine itself. Raises `DataError` if it has no bank, or nothing that could be told apart."""
        wanted: Sequence[tuple[bool, str]] = (
            (len(self.train) > 0, "no train clip"),
            (not any(clip.anomalous for clip in self.train), "an anomalous train clip"),
            (len(self.test) > 0, "no test clip"),
            (bool(self.anomalous.any()), "no anomalous test clip, so there is nothing to find"),
            (not self.anomalous.all(), "no normal test clip"),
        )
        for holds, what in wanted:
            if not holds:
                raise DataError(f"The machine {self.name} in {root} has {what}.")
        return self


@dataclass(frozen=True)
class _Placed:
    """A clip and where it belongs."""

    machine: str
    section: str
    form: Form
    split: str
    clip: JudgedClip


def read_tree(root: Path, labels: Labels | None = None) -> list[JudgedMachine]:
    """Read all machines of a tree: `<machine>/<split>/<clip>`, or plain `<machine>/<split>/{normal,anomaly}/<clip>`.

    A machine with several sections (2020 to 2022) is one machine per section, as the challenge scores them. Where
    names tell no domain (2020, plain), all clips are of the source domain.

    Args:
        root: the tree.
        labels: of test clips whose names hide their condition.

    Raises:
        DataError: no such tree, a name of no known form, a machine without train clips or without normal or
            anomalous test clips, test clips whose condition or domain neither name nor label tells, or labels of
            clips that are absent.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder of machines at {root}.")
    plain = any(path.parent.name in _CONDITIONS for path in audio_files(root))
    placed = list(_plain(root) if plain else _dcase(root, labels))
    forms = sorted(
        {one.form for one in placed if one.split == "test"}
    )  # train clips of 2021 are named as those of 2022
    if len(forms) > 1:
        raise DataError(f"{root} holds machines as in {' and as in '.join(forms)}. Judge each year by itself.")
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
        place = PurePosixPath(clip.name)  # its path may be one that a link leads to
        name = DcaseName.parse(place.stem)
        assert name is not None  # read_dcase has parsed it
        if clip.domain != "noise":
            clips.append((clip, place, name))
    if labels is not None:
        labels.check(Key.of(clip.label, name) for clip, _, name in clips if clip.split == "test")
    for clip, place, name in clips:
        condition, domain = _told(clip, name, labels)
        own = f"{name.number} {name.attributes}"
        judged = _judged(clip.path, place.name, Domain(domain), condition, name.attributes, own=own)
        yield _Placed(clip.label, name.section, _form(place), clip.split, judged)


def _told(clip: Clip, name: DcaseName, labels: Labels | None) -> tuple[str, str]:
    """Condition and domain of a clip, by its name or else by its label."""
    if clip.split == "train":
        return clip.condition or "normal", clip.domain or Domain.SOURCE
    if clip.condition:
        return clip.condition, clip.domain or Domain.SOURCE
    label = labels.by_clip.get(Key.of(clip.label, name)) if labels else None
    if label is None:
        where = f"{labels.path} does not tell either" if labels else "a test clip needs to tell, or labels do"
        raise DataError(f"The name of {clip.path} hides whether it is normal; {where}.")
    domain = clip.domain or label.domain
    if not domain:
        raise DataError(f"Neither the name of {clip.path} nor its label tells its domain.")
    return label.condition, domain


def _form(place: PurePosixPath) -> Form:
    if place.parent.name.endswith("_test"):
        return "2021"
    return "2022" if place.name.startswith("section_") else "2020"


def _judged(path: Path, name: str, domain: Domain, condition: str, telling: str, *, own: str) -> JudgedClip:
    told = RECORDING.search(telling)
    # Normal and anomalous recordings are counted apart: each was made with the machine in one condition.
    recording = f"recording {told.group(1)}" if told else f"clip {own}"
    return JudgedClip(path, domain, condition == "anomaly", f"{domain} {condition} {recording}", name)
