"""Measures how well embeddings separate a machine's healthy and faulty clips, with a score that needs no fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offkey.errors import OffkeyError
from service.audio.decode import AudioLimits, Samples, cut, decode
from service.encoder.bundle import WindowSpec
from training.data.catalog import Clip, DataError
from training.data.layouts import read_collections
from training.data.layouts.collection import Collection
from training.metrics import auc, pauc

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Machine:
    """The clips of one machine in a DCASE tree."""

    name: str
    bank: tuple[Clip, ...]
    normal: tuple[Clip, ...]
    anomalous: tuple[Clip, ...]

    @property
    def clips(self) -> tuple[Clip, ...]:
        """All clips."""
        return (*self.bank, *self.normal, *self.anomalous)


@dataclass(frozen=True)
class Separation:
    """Areas under the ROC curve; 0.5 is chance, 1 is perfect."""

    auc: float
    pauc: float


def read_machines(tree: Path) -> tuple[Machine, ...]:
    """Read the machines of a tree in DCASE Task 2 layout, sorted by name.

    Raises:
        DataError: no such tree, or a machine without train clips, normal test clips or anomalous test clips.
    """
    found: dict[str, dict[str, list[Clip]]] = {}
    for clip in read_collections([Collection(layout="dcase", path=str(tree), splits=("train", "test"))]).clips:
        kind = "train" if clip.split == "train" else clip.condition
        found.setdefault(clip.label, {}).setdefault(kind, []).append(clip)
    for name, clips in found.items():
        for kind, what in (("train", "in `train`"), ("normal", "normal in `test`"), ("anomaly", "anomalous in `test`")):
            if kind not in clips:
                raise DataError(f"The machine {name} in {tree} has no clip that is {what}, so nothing can be compared.")
    return tuple(
        Machine(name, tuple(clips["train"]), tuple(clips["normal"]), tuple(clips["anomaly"]))
        for name, clips in sorted(found.items())
    )


def read_windows(clip: Clip, window: WindowSpec, sample_rate: int) -> list[Samples]:
    """Decode a clip and cut it as the service does, each window `(samples,)`. Raises `DataError` with the path."""
    try:
        samples = decode(clip.path.read_bytes(), sample_rate=sample_rate, limits=AudioLimits()).samples
    except (OffkeyError, OSError) as error:
        raise DataError(f"{clip.path} cannot be scored: {error}") from error
    if len(samples) < round(window.min_seconds * sample_rate):
        raise DataError(f"{clip.path} is shorter than {window.min_seconds:g} s, the minimum of this bundle.")
    size, hop = (round(seconds * sample_rate) for seconds in (window.seconds, window.hop_seconds))
    return [part for _, part in cut(samples, window=size, hop=hop)]


def separation(bank: Sequence[Vectors], normal: Sequence[Vectors], anomalous: Sequence[Vectors]) -> Separation:
    """Compute AUC and pAUC of the cosine distance to the nearest enrolled window.

    Args:
        bank: unit embeddings `(windows, dim)` of each enrolled clip.
        normal: unit embeddings of each healthy test clip.
        anomalous: unit embeddings of each faulty test clip. The score of a clip is that of its most anomalous window.
    """
    enrolled = np.concatenate(bank)
    scores = np.array([float((1 - windows @ enrolled.T).min(axis=1).max()) for windows in (*normal, *anomalous)])
    faulty = np.arange(len(scores)) >= len(normal)
    once = np.ones((1, len(scores)))
    return Separation(auc=float(auc(scores, ~faulty, faulty, once)[0]), pauc=float(pauc(scores, faulty, once)[0]))
