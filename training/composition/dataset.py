"""A folder of composed clips with the manifest that training reads, and the credits of what they are made of."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from training.composition.machine import Piece, compose_machine
from training.composition.noise import compose_noise
from training.composition.recordings import Recordings
from training.composition.shaping import SAMPLE_RATE
from training.data.catalog import COLUMNS, Catalog, Clip, DataError, choose
from training.data.credits import ATTRIBUTION_FILE, credit, write_credits

MANIFEST_FILE = "manifest.csv"
SET = "composed"
SOURCE, NOISE = "source", "noise"
TRAIN, HELD_OUT = "train", "held-out"  # splits

_HELD_OUT_SHARE = 0.1  # of the recordings, where no split of them is named

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
    held_out: int  # clips of each role for measuring, of recordings that no other clip is composed of
    held_out_splits: tuple[str, ...]  # of the recordings, kept for them; empty: a tenth of the recordings
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
    apart = _held_out(clips, asked) if asked.held_out else frozenset()
    kept = [clip for clip in clips if clip not in apart]
    recordings = Recordings(kept, lambda done: progress("decoding", done, len(clips)))
    parts = [(TRAIN, "", recordings, asked.sources, asked.noises)]
    refused = dict(recordings.refused)
    if asked.held_out:
        others = [clip for clip in clips if clip in apart]
        try:
            own = Recordings(others, lambda done: progress("decoding", len(kept) + done, len(clips)))
        except DataError as error:
            raise DataError(
                f"Of the held-out recordings: {error} Hold out more of them (--held-out-split), or none (--held-out 0)."
            ) from error
        parts.append((HELD_OUT, f"{HELD_OUT}-", own, asked.held_out, asked.held_out))
        refused |= own.refused
    rows: list[tuple[str, str, str, str, str]] = []  # path, role, label, license, split
    used: set[Clip] = set()
    total = sum(sources + noises for *_, sources, noises in parts)
    for split, prefix, sounds, sources, noises in parts:
        for role, count, make in ((SOURCE, sources, compose_machine), (NOISE, noises, compose_noise)):
            (folder / role).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                made = _sounding(make, sounds, asked.seed, number, role, split)
                path = f"{role}/{prefix}{number:06d}.flac"
                _write(folder / path, made)
                used.update(made.clips)
                rows.append((path, role, made.label, _license(made), split))
                progress("composing", len(rows), total)
    write_credits(folder / ATTRIBUTION_FILE, map(credit, used))
    manifest = folder / MANIFEST_FILE
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, "source", "split"))
        permissive = int(all(clip.permissive for clip in used))
        writer.writerows(
            (path, SET, role, label, license_, permissive, f"composed of clips in {ATTRIBUTION_FILE}", split)
            for path, role, label, license_, split in rows
        )
    return Composed(manifest, refused)


def _held_out(clips: Sequence[Clip], asked: Composition) -> frozenset[Clip]:
    """Choose the recordings that only held-out clips are composed of."""
    if asked.held_out_splits:
        found = frozenset(clip for clip in clips if clip.split in asked.held_out_splits)
    else:
        found = choose(clips, _HELD_OUT_SHARE)
    if not found or len(found) == len(clips):
        known = ", ".join(sorted({clip.split or "none" for clip in clips}))
        raise DataError(
            f"{len(found)} of {len(clips)} recordings would be held out, so none is left to compose from. The splits "
            f"are: {known}. Name one of several, or compose no held-out clips."
        )
    return found


def _sounding(
    make: Callable[[np.random.Generator, Recordings], Piece],
    recordings: Recordings,
    seed: int,
    number: int,
    role: str,
    split: str,
) -> Piece:
    """The first of some attempts that is not silent: grains may fall outside of the window, say."""
    for attempt in range(_ATTEMPTS):
        state = [seed, (SOURCE, NOISE).index(role), number, attempt, *([1] if split == HELD_OUT else [])]
        made = make(np.random.default_rng(state), recordings)
        if np.isfinite(made.sound).all() and made.sound.std() > _SOUNDS:
            return made
    raise DataError(f"{_ATTEMPTS} attempts at {role} {number} were silent. Are the recordings?")


def _write(path: Path, made: Piece) -> None:
    peak = float(np.abs(made.sound).max())
    soundfile.write(path, made.sound * (_PEAK / peak), SAMPLE_RATE, subtype="PCM_24")


def _license(made: Piece) -> str:
    return "; ".join(sorted({clip.license for clip in made.clips})) or "made up, no recording"
