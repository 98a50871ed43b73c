"""Writes a folder of composed clips, with a manifest for training and the credits of the recordings."""

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

_HELD_OUT_SHARE = 0.1  # share of the recordings that is held out if no split is named

_PEAK = 0.9  # largest absolute sample of a clip, as a share of full scale
_SOUNDS = 0.5  # smallest RMS of a sound of unit power that is not silent
_ATTEMPTS = 20


@dataclass(frozen=True)
class Composition:
    """Options of a composition."""

    manifest: Path  # manifest of the recordings
    roles: tuple[str, ...]  # roles of the recordings to use
    sources: int  # number of machine-like clips
    noises: int  # number of noise clips
    held_out: int  # held-out clips of each role, composed of recordings that no other clip uses
    held_out_splits: tuple[str, ...]  # splits of the recordings for held-out clips; empty: a tenth of the recordings
    seed: int  # seed of all random choices
    permissive: bool  # only recordings whose license allows publishing the weights


@dataclass(frozen=True)
class Composed:
    """Result of a composition."""

    manifest: Path  # manifest of the composed clips
    refused: Mapping[str, str]  # reasons, by recording that could not be used


def compose(composition: Composition, folder: Path, progress: Callable[[str, int, int], None]) -> Composed:
    """Write the clips, their manifest and their credits into a new folder.

    Clip n depends on the seed and on n alone.

    Args:
        composition: options.
        folder: new or empty folder.
        progress: callback with the name of a step, its number of done items and their total.

    Raises:
        DataError: the folder is not empty, or no recording is steady.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty. Choose a new folder, or empty this one first.")
    clips = Catalog.from_csv(composition.manifest).select(roles=composition.roles, permissive=composition.permissive)
    apart = _held_out(clips, composition) if composition.held_out else frozenset()
    kept = [clip for clip in clips if clip not in apart]
    recordings = Recordings(kept, lambda done: progress("decoding", done, len(clips)))
    parts = [(TRAIN, "", recordings, composition.sources, composition.noises)]
    refused = dict(recordings.refused)
    if composition.held_out:
        others = [clip for clip in clips if clip in apart]
        try:
            own = Recordings(others, lambda done: progress("decoding", len(kept) + done, len(clips)))
        except DataError as error:
            raise DataError(
                f"Held-out recordings: {error} Hold out more of them (--held-out-split), or none (--held-out 0)."
            ) from error
        parts.append((HELD_OUT, f"{HELD_OUT}-", own, composition.held_out, composition.held_out))
        refused |= own.refused
    rows: list[tuple[str, str, str, str, str]] = []  # path, role, label, license, split
    used: set[Clip] = set()
    total = sum(sources + noises for *_, sources, noises in parts)
    for split, prefix, sounds, sources, noises in parts:
        for role, count, make in ((SOURCE, sources, compose_machine), (NOISE, noises, compose_noise)):
            (folder / role).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                made = _sounding(make, sounds, composition.seed, number, role, split)
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


def _held_out(clips: Sequence[Clip], composition: Composition) -> frozenset[Clip]:
    """Choose the recordings that only held-out clips use."""
    if composition.held_out_splits:
        found = frozenset(clip for clip in clips if clip.split in composition.held_out_splits)
    else:
        found = choose(clips, _HELD_OUT_SHARE)
    if not found or len(found) == len(clips):
        known = ", ".join(sorted({clip.split or "none" for clip in clips}))
        raise DataError(
            f"{len(found)} of {len(clips)} recordings would be held out; at least one must be held out, and one must "
            f"remain. The splits are: {known}. Choose one of several, or compose no held-out clips."
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
    """Compose a clip; repeat if the result is silent, for example because its grains are outside of the window."""
    for attempt in range(_ATTEMPTS):
        state = [seed, (SOURCE, NOISE).index(role), number, attempt, *([1] if split == HELD_OUT else [])]
        made = make(np.random.default_rng(state), recordings)
        if np.isfinite(made.sound).all() and made.sound.std() > _SOUNDS:
            return made
    raise DataError(f"{_ATTEMPTS} attempts at {role} {number} were silent. Check whether the recordings are silent.")


def _write(path: Path, made: Piece) -> None:
    peak = float(np.abs(made.sound).max())
    soundfile.write(path, made.sound * (_PEAK / peak), SAMPLE_RATE, subtype="PCM_24")


def _license(made: Piece) -> str:
    return "; ".join(sorted({clip.license for clip in made.clips})) or "synthetic, no recording"
