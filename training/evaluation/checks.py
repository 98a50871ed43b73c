"""Checks all clips before training, so that an unusable clip does not end an experiment after hours."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from offkey.errors import OffkeyError
from service.audio.decode import AudioLimits, decode
from training.data.catalog import DataError
from training.evaluation.threads import in_threads
from training.evaluation.tree import JudgedClip, JudgedMachine

_NAMED = 3  # unusable clips that the error names


@dataclass(frozen=True)
class CheckedClips:
    """Machines without unusable clips.

    Attributes:
        machines: machines without repeated clips.
        notes: clips that were left out, and other remarks on the data.
        shortest: length of the shortest clip, in samples.
    """

    machines: tuple[JudgedMachine, ...]
    notes: tuple[str, ...]
    shortest: int


class _Read(NamedTuple):
    samples: int
    digest: bytes  # hash of the decoded samples
    own_rate: int  # sample rate of the file, in Hz


def check_clips(
    machines: Sequence[JudgedMachine],
    root: Path,
    sample_rate: int,
    min_seconds: float,
    workers: int,
    progress: Progress,
) -> CheckedClips:
    """Decode every clip once, and leave out clips that repeat another clip of their machine.

    Clips with the same decoded samples are one recording, and a test clip that is in the bank is not a test. The first
    one is kept, train before test.

    Args:
        machines: machines of the tree.
        root: folder of the machines, for messages.
        sample_rate: sample rate of the methods, in Hz.
        min_seconds: length of the shortest clip that all methods accept.
        workers: number of threads; 0 is one per core.
        progress: progress display.

    Raises:
        DataError: a clip cannot be decoded, is silent or too short; or a machine has too few clips without
            repeated ones.
    """
    clips = [clip for machine in machines for clip in (*machine.train, *machine.test)]
    task = progress.add_task("checking clips", total=len(clips))
    found: dict[JudgedClip, _Read] = {}
    problems: dict[JudgedClip, str] = {}
    for clip, read in in_threads(lambda clip: _read(clip, sample_rate, min_seconds), clips, workers):
        progress.advance(task)
        if isinstance(read, str):
            problems[clip] = read
        else:
            found[clip] = read
    if problems:
        named = " ".join([f"{clip.path}: {problems[clip]}" for clip in clips if clip in problems][:_NAMED])
        raise DataError(f"{len(problems)} clips of {len(clips)} cannot be used. {named}")
    notes: list[str] = []
    kept = tuple(_without_repeats(machine, root, found, notes) for machine in machines)
    notes += [note for machine in kept if (note := _rates(machine, found))]
    return CheckedClips(kept, tuple(notes), min(read.samples for read in found.values()))


def _read(clip: JudgedClip, sample_rate: int, min_seconds: float) -> _Read | str:
    """Decode a clip, or return the reason why it cannot be used."""
    try:
        waveform = decode(clip.path.read_bytes(), sample_rate=sample_rate, limits=AudioLimits())
    except OSError as error:
        return f"The file cannot be read ({error.strerror})."
    except OffkeyError as error:
        return error.detail
    if len(waveform.samples) < round(min_seconds * sample_rate):
        return f"The clip lasts {waveform.seconds:.3f} s; the methods need at least {min_seconds:g} s."
    return _Read(
        len(waveform.samples), hashlib.sha256(waveform.samples.tobytes()).digest(), waveform.source_sample_rate
    )


def _without_repeats(
    machine: JudgedMachine, root: Path, found: dict[JudgedClip, _Read], notes: list[str]
) -> JudgedMachine:
    first: dict[bytes, tuple[str, JudgedClip]] = {}
    kept: dict[str, list[JudgedClip]] = {"train": [], "test": []}
    for split, clips in (("train", machine.train), ("test", machine.test)):
        for clip in clips:
            where, same = first.setdefault(found[clip].digest, (split, clip))
            if same is clip:
                kept[split].append(clip)
            else:
                notes.append(f"{machine.name}: {split}/{clip.name} repeats {where}/{same.name} and was left out.")
    left = replace(machine, train=tuple(kept["train"]), test=tuple(kept["test"]))
    try:
        return left.check(root)
    except DataError as error:
        raise DataError(f"{error} Repeated clips were left out: {' '.join(notes[-_NAMED:])}") from error


def _rates(machine: JudgedMachine, found: dict[JudgedClip, _Read]) -> str:
    """Format a note on files of several sample rates, which can affect scores."""
    rates = Counter(found[clip].own_rate for clip in (*machine.train, *machine.test))
    if len(rates) < 2:
        return ""
    listed = ", ".join(f"{rate} Hz in {count}" for rate, count in sorted(rates.items()))
    return f"{machine.name}: its files have different sample rates ({listed}), which can affect scores."
