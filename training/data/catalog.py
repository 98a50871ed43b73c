"""Clips named by a CSV manifest: path, set, role, label, licence, permissive."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_COLUMNS = ("path", "set", "role", "label", "licence", "permissive")


class DataError(Exception):
    """A manifest, a folder or a selection of clips is not usable."""


@dataclass(frozen=True)
class Clip:
    """One row of a manifest."""

    path: Path  # absolute
    name: str  # the path as the manifest has it
    set: str
    role: str
    label: str
    license: str
    permissive: bool  # may weights trained on it be published
    source: str


@dataclass(frozen=True)
class Catalog:
    """All clips of a manifest, in its order."""

    clips: tuple[Clip, ...]

    @classmethod
    def from_csv(cls, manifest: Path) -> "Catalog":
        """Read a manifest; paths in it are relative to its folder.

        Raises:
            DataError: no such file, columns missing, or a clip that is named but absent.
        """
        if not manifest.is_file():
            raise DataError(f"There is no data manifest at {manifest}. Set `data.manifest=PATH`.")
        with manifest.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{manifest} has no column {', '.join(missing)}.")
            clips = tuple(_clip(row, manifest.parent) for row in reader)
        absent = [clip.name for clip in clips if not clip.path.is_file()]
        if absent:
            raise DataError(f"{manifest} names {len(absent)} clips that are absent, the first: {absent[0]}.")
        return cls(clips)

    def select(
        self, *, roles: Sequence[str], labels: Sequence[str] = (), without: Sequence[str] = (), permissive: bool
    ) -> tuple[Clip, ...]:
        """Clips of these roles whose label is in `labels` (if any are named) and not in `without`.

        Args:
            roles: as in the manifest's column.
            labels: keep only these; empty keeps all.
            without: leave these out.
            permissive: keep only clips whose weights may be published.

        Raises:
            DataError: a label names no clip, or nothing is left.
        """
        known = {clip.label for clip in self.clips if clip.role in roles}
        unknown = sorted({*labels, *without} - known)
        if unknown:
            raise DataError(f"No clip of role {', '.join(roles)} has the label {', '.join(unknown)}.")
        found = tuple(
            clip
            for clip in self.clips
            if clip.role in roles
            and (not labels or clip.label in labels)
            and clip.label not in without
            and (clip.permissive or not permissive)
        )
        if not found:
            raise DataError(f"No clip of role {', '.join(roles)} is left. Check `data` in the config.")
        return found


def _clip(row: dict[str, str], root: Path) -> Clip:
    return Clip(
        path=(root / row["path"]).resolve(),
        name=row["path"],
        set=row["set"],
        role=row["role"],
        label=row["label"],
        license=row["licence"],
        permissive=row["permissive"] == "1",
        source=row.get("source") or row["set"],
    )


def classes(clips: Iterable[Clip]) -> tuple[str, ...]:
    """The labels, sorted: the order of a tagging head."""
    return tuple(sorted({clip.label for clip in clips}))


def fingerprint(clips: Iterable[Clip], contents: dict[Path, str]) -> str:
    """SHA-256 over the names, labels and contents of the clips, in any order."""
    lines = sorted(f"{clip.name},{clip.label},{contents[clip.path]}" for clip in clips)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
