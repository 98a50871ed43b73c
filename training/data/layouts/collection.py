"""One collection of clips as a config names it, and what all layouts share."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data.catalog import Clip, DataError

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".caf", ".w64", ".rf64"})


@dataclass(frozen=True)
class Collection:
    """Where clips lie, in which layout, and what they are used as."""

    layout: str = "manifest"
    path: str = ""  # a folder; for manifest, labels and audioset the CSV file
    name: str = ""  # of the set; empty: the last part of the path
    role: str = "source"
    license: str = "unknown"
    permissive: bool = False  # may weights trained on it be published
    attribution: str = ""  # whom to credit; empty: the name
    audio: str = ""  # folder of the clips that a CSV file names, relative to the file
    splits: tuple[str, ...] = ()  # only these parts, as the collection calls them
    domains: tuple[str, ...] = ()  # only these domains
    channel: str = ""  # near, far or a number from 0; empty: the mean of all

    @property
    def root(self) -> Path:
        """The path. Raises `DataError` if nothing is there."""
        root = Path(self.path)
        if not self.path or not root.exists():
            raise DataError(f"There is nothing at {self.path!r}, the path of a collection of layout {self.layout!r}.")
        return root

    @property
    def title(self) -> str:
        """What the set is called."""
        return self.name or Path(self.path).resolve().stem

    @property
    def channel_number(self) -> int | None:
        """Which channel is heard; near is the left, far the right (DCASE 2026 Task 2). Raises `DataError`."""
        if not self.channel:
            return None
        number = {"near": "0", "far": "1"}.get(self.channel, self.channel)
        if not (number.isascii() and number.isdecimal()):
            raise DataError(f"The channel is near, far or a number from 0, not {self.channel!r}.")
        return int(number)

    def clip(
        self, path: Path, name: str, labels: tuple[str, ...], *, split: str = "", domain: str = "", condition: str = ""
    ) -> Clip:
        """A clip of this collection."""
        return Clip(
            path=path.resolve(),
            name=f"{self.title}/{name}",  # names of two collections must not meet
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
    """List all audio files below a folder, sorted, also those that links lead to; hidden ones are left out.

    A link to a folder that contains it is not followed.

    Raises:
        DataError: it is no folder, or holds no audio.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder.")
    found = sorted(
        path
        for path in _files(root)
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()  # a link may dangle
    )
    if not found:
        raise DataError(f"{root} holds no audio file ({', '.join(sorted(AUDIO_SUFFIXES))}).")
    return found


def _files(root: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(root, followlinks=True):
        inside = Path(folder).relative_to(root)
        above = {root.joinpath(*inside.parts[:depth]).resolve() for depth in range(len(inside.parts) + 1)}
        below[:] = [name for name in below if not name.startswith(".") and Path(folder, name).resolve() not in above]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def kept(collection: Collection, clips: list[Clip], splits: tuple[str, ...]) -> list[Clip]:
    """Clips of these splits; none named keeps all. Raises `DataError` where a split names no clip."""
    known = sorted({clip.split for clip in clips})
    absent = [split for split in splits if split not in known]
    if absent:
        raise DataError(f"{collection.path} has no split {', '.join(absent)}; it has {', '.join(known)}.")
    return [clip for clip in clips if not splits or clip.split in splits]
