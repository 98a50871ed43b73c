"""Machines to be judged: train and test clips of a tree in the DCASE Task 2 layout."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.domain.machine import Domain
from training.data.catalog import Clip, DataError
from training.data.layouts.collection import Collection
from training.data.layouts.dcase import DcaseName, read_dcase

_RECORDING = re.compile(r"(?:^|_)rec_([^_]+)")  # which recording a clip was cut from, where the name tells


@dataclass(frozen=True)
class JudgedClip:
    """A clip whose domain and condition are known."""

    path: Path
    domain: Domain
    anomalous: bool
    recording: str  # clips of one recording are not independent

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

    @cached_property
    def anomalous(self) -> NDArray[np.bool_]:
        """Which test clips are anomalous, `(test clips,)`."""
        return np.array([clip.anomalous for clip in self.test])

    @cached_property
    def target(self) -> NDArray[np.bool_]:
        """Which test clips are of the target domain, `(test clips,)`."""
        return np.array([clip.domain is Domain.TARGET for clip in self.test])


def read_tree(root: Path) -> list[JudgedMachine]:
    """Read all machines of a tree.

    A machine with several sections (2020 to 2022) is one machine per section, as the challenge scores them. Where
    names tell no domain (2020), all clips are of the source domain.

    Raises:
        DataError: no such tree, a name of no known form, a machine without train clips or without normal or
            anomalous test clips, or test clips whose names hide the condition.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder of machines at {root}.")
    found: dict[tuple[str, str], dict[str, list[JudgedClip]]] = {}
    for clip in read_dcase(Collection(layout="dcase", path=str(root), splits=("train", "test"))):
        if clip.domain == "noise":
            continue
        name = DcaseName.parse(clip.path.stem)
        assert name is not None  # read_dcase has parsed it
        splits = found.setdefault((clip.label, name.section), {"train": [], "test": []})
        splits[clip.split].append(_judged(clip, name))
    sections = {machine: sum(other == machine for other, _ in found) for machine, _ in found}
    machines = []
    for (machine, section), splits in sorted(found.items()):
        title = machine if sections[machine] == 1 else f"{machine}/section_{section}"
        machines.append(_checked(JudgedMachine(title, tuple(splits["train"]), tuple(splits["test"])), root))
    return machines


def _judged(clip: Clip, name: DcaseName) -> JudgedClip:
    if clip.split == "test" and not clip.condition:
        raise DataError(f"The name of {clip.path} hides whether it is normal; a test clip needs to tell.")
    domain = Domain(clip.domain or Domain.SOURCE)
    told = _RECORDING.search(name.attributes)
    # Normal and anomalous recordings are counted apart: each was made with the machine in one condition.
    own = f"recording {told.group(1)}" if told else f"clip {name.number} {name.attributes}"
    return JudgedClip(clip.path, domain, clip.condition == "anomaly", f"{domain} {clip.condition} {own}")


def _checked(machine: JudgedMachine, root: Path) -> JudgedMachine:
    wanted: Sequence[tuple[bool, str]] = (
        (len(machine.train) > 0, "no train clip"),
        (not any(clip.anomalous for clip in machine.train), "an anomalous train clip"),
        (bool(machine.anomalous.any()), "no anomalous test clip, so there is nothing to find"),
        (not machine.anomalous.all() and len(machine.test) > 0, "no normal test clip"),
    )
    for holds, what in wanted:
        if not holds:
            raise DataError(f"The machine {machine.name} in {root} has {what}.")
    return machine
