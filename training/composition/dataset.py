"""A folder of composed clips with the manifest that training reads, and the credits of what they are made of."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from training.composition.machine import Piece, compose_machine
from training.composition.noise import compose_noise
from training.composition.recordings import Recordings
from training.composition.shaping import SAMPLE_RATE
from training.data.catalog import COLUMNS, Catalog, Clip, DataError
from training.data.credits import ATTRIBUTION_FILE, credit, write_credits

MANIFEST_FILE = "manifest.csv"
SET = "composed"
SOURCE, NOISE = "source", "noise"

_PEAK = 0.9  # of full scale, which no clip exceeds
_SOUNDS = 0.5  # RMS of a sound of unit power; what is silent has less
_ATTEMPTS = 20


@dataclass(frozen=True)
class Composition:
    """What is to be composed."""

    manifest: Path  # of the recordings
    roles: tuple[str, ...]
    sources: int
    noises: int
    seed: int
    permissive: bool  # only of clips that weights may be published of


@dataclass(frozen=True)
class Composed:
    """What was composed, and the recordings that were of no use, with the reason."""

    manifest: Path
    refused: Mapping[str, str]


def compose(asked: Composition, folder: Path, progress: Callable[[str, int, int], None]) -> Composed:
    """Write the clips, their manifest and their credits below a folder that is not there yet.

    Clip n hangs on the seed and on n alone.

    Args:
        asked: what.
        folder: is made.
        progress: told what is being done, how much of it is done, and how much there is.

    Raises:
        DataError: the folder holds something, or no recording is steady.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty. Compose into a new folder, or empty it first.")
    clips = Catalog.from_csv(asked.manifest).select(roles=asked.roles, permissive=asked.permissive)
    recordings = Recordings(clips, lambda done: progress("decoding", done, len(clips)))
    rows: list[tuple[str, str, str, str]] = []  # path, role, label, license
    used: set[Clip] = set()
    total = asked.sources + asked.noises
    for role, count, make in ((SOURCE, asked.sources, compose_machine), (NOISE, asked.noises, compose_noise)):
        (folder / role).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            made = _sounding(make, recordings, asked.seed, number, role)
            path = f"{role}/{number:06d}.flac"
            _write(folder / path, made)
            used.update(made.clips)
            rows.append((path, role, made.label, _license(made)))
            progress("composing", len(rows), total)
    write_credits(folder / ATTRIBUTION_FILE, map(credit, used))
    manifest = folder / MANIFEST_FILE
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, "source"))
        permissive = int(all(clip.permissive for clip in used))
        writer.writerows(
            (path, SET, role, label, license_, permissive, f"composed of clips in {ATTRIBUTION_FILE}")
            for path, role, label, license_ in rows
        )
    return Composed(manifest, recordings.refused)


def _sounding(
    make: Callable[[np.random.Generator, Recordings], Piece],
    recordings: Recordings,
    seed: int,
    number: int,
    role: str,
) -> Piece:
    """The first of some attempts that is not silent: grains may fall outside of the window, say."""
    for attempt in range(_ATTEMPTS):
        made = make(np.random.default_rng([seed, (SOURCE, NOISE).index(role), number, attempt]), recordings)
        if np.isfinite(made.sound).all() and made.sound.std() > _SOUNDS:
            return made
    raise DataError(f"{_ATTEMPTS} attempts at {role} {number} were silent. Are the recordings?")


def _write(path: Path, made: Piece) -> None:
    peak = float(np.abs(made.sound).max())
    soundfile.write(path, made.sound * (_PEAK / peak), SAMPLE_RATE, subtype="PCM_24")


def _license(made: Piece) -> str:
    return "; ".join(sorted({clip.license for clip in made.clips})) or "made up, no recording"
