"""A collection of clips in a config, and functions that all layouts share."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data.catalog import Clip, DataError

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".caf", ".w64", ".rf64"})


@dataclass(frozen=True)
class Collection:
    """Location, layout and use of clips."""

    layout: str = "manifest"
    path: str = ""  # folder; for manifest, labels and audioset the CSV file
    name: str = ""  # name of the set; empty: last part of the path
    role: str = "source"
    license: str = "unknown"
    permissive: bool = False  # whether weights that were trained on it may be published
    attribution: str = ""  # credit; empty: the name
    audio: str = ""  # folder of the clips of a CSV file, relative to the file
    splits: tuple[str, ...] = ()  # splits to read; empty: default of the layout
    domains: tuple[str, ...] = ()  # domains to read; empty: all
    channel: str = ""  # near, far or a number from 0; empty: mean of all channels

    @property
    def root(self) -> Path:
        """Path of the collection. Raises `DataError` if it does not exist."""
        root = Path(self.path)
        if not self.path or not root.exists():
            raise DataError(f"There is nothing at {self.path!r}, the path of a collection of layout {self.layout!r}.")
        return root

    @property
    def title(self) -> str:
        """Name of the set."""
        return self.name or Path(self.path).resolve().stem

    @property
    def channel_number(self) -> int | None:
        """Channel to read; near is the left, far the right (DCASE 2026 Task 2). Raises `DataError`."""
        if not self.channel:
            return None
        number = {"near": "0", "far": "1"}.get(self.channel, self.channel)
        if not (number.isascii() and number.isdecimal()):
            raise DataError(f"The channel must be near, far or a number from 0, not {self.channel!r}.")
        return int(number)

    def clip(
        self, path: Path, name: str, labels: tuple[str, ...], *, split: str = "", domain: str = "", condition: str = ""
    ) -> Clip:
        """Create a clip of this collection."""
        return Clip(
            path=path.resolve(),
            name=f"{self.title}/{name}",  # unique among collections
            set=self.title,
            role=self.role,
            labels=labels,
            license=self.license,
            permissive=self.permissive,
            source=self.attribution or self.title,
            split=split,
            domain=domain,
            condition=condition,
            channel=self.channel_number,
        )


def audio_files(root: Path) -> list[Path]:
    """List the audio files below a folder, sorted; links are followed, hidden files are left out.

    A link to a folder that contains it is not followed.

    Raises:
        DataError: the path is not a folder, or the folder has no audio.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder.")
    found = sorted(
        path
        for path in _files(root)
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()  # a link may be broken
    )
    if not found:
        raise DataError(f"{root} has no audio file ({', '.join(sorted(AUDIO_SUFFIXES))}).")
    return found


def _files(root: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(root, followlinks=True):
        inside = Path(folder).relative_to(root)
        above = {root.joinpath(*inside.parts[:depth]).resolve() for depth in range(len(inside.parts) + 1)}
        below[:] = [name for name in below if not name.startswith(".") and Path(folder, name).resolve() not in above]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def of_splits(collection: Collection, clips: list[Clip], splits: tuple[str, ...]) -> list[Clip]:
    """Select the clips of splits; no splits select all. Raises `DataError` if a split has no clip."""
    present = sorted({clip.split for clip in clips})
    absent = [split for split in splits if split not in present]
    if absent:
        raise DataError(f"{collection.path} has no split {', '.join(absent)}; it has {', '.join(present)}.")
    return [clip for clip in clips if not splits or clip.split in splits]
