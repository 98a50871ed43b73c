"""Clips, what is known of them, and the choice among them."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("path", "set", "role", "label", "licence", "permissive")
_NAMED = 3  # absent clips that an error names; more would bury the file's name


class DataError(Exception):
    """A manifest, a folder or a selection of clips is not usable."""


@dataclass(frozen=True)
class Clip:
    """One recording, or one channel of it."""

    path: Path  # absolute
    name: str  # the path as its collection has it
    set: str
    role: str
    labels: tuple[str, ...]  # at least one
    license: str
    permissive: bool  # may weights trained on it be published
    source: str  # whom to credit
    split: str = ""  # the collection's own: train, test, a fold
    domain: str = ""  # DCASE: source, target; of supplemental clips also noise
    condition: str = ""  # DCASE: normal, anomaly; empty where the name hides it
    channel: int | None = None  # None: the mean of all

    @property
    def label(self) -> str:
        """All labels in one word, for people and fingerprints."""
        return ";".join(self.labels)


@dataclass(frozen=True)
class Catalog:
    """Clips of one or more collections, in their order."""

    clips: tuple[Clip, ...]

    @classmethod
    def from_csv(cls, manifest: Path) -> "Catalog":
        """Read a manifest; paths in it are relative to its folder, several labels are parted by `;`.

        Raises:
            DataError: no such file, columns missing, a row without a label, or a clip that is named but absent.
        """
        if not manifest.is_file():
            raise DataError(f"There is no data manifest at {manifest}. Set `data.manifest=PATH`.")
        rows = read_table(manifest, COLUMNS)
        clips = tuple(_clip(row, manifest.parent) for row in rows)
        unlabeled = next((clip.name for clip in clips if not clip.labels), None)
        if unlabeled is not None:
            raise DataError(f"{manifest} gives no label for {unlabeled}.")
        check_present(manifest, clips)
        return cls(clips)

    def select(
        self, *, roles: Sequence[str], labels: Sequence[str] = (), without: Sequence[str] = (), permissive: bool
    ) -> tuple[Clip, ...]:
        """Clips of these roles with a label in `labels` (if any are named) and none in `without`.

        Args:
            roles: as in the manifest's column.
            labels: keep only these; empty keeps all.
            without: leave these out.
            permissive: keep only clips whose weights may be published.

        Raises:
            DataError: a label names no clip, or nothing is left.
        """
        known = {label for clip in self.clips if clip.role in roles for label in clip.labels}
        unknown = sorted({*labels, *without} - known)
        if unknown:
            raise DataError(f"No clip of role {', '.join(roles)} has the label {', '.join(unknown)}.")
        wanted, unwanted = set(labels), set(without)
        found = tuple(
            clip
            for clip in self.clips
            if clip.role in roles
            and (not wanted or not wanted.isdisjoint(clip.labels))
            and unwanted.isdisjoint(clip.labels)
        )
        if found and permissive:
            found, before = tuple(clip for clip in found if clip.permissive), len(found)
            if not found:
                raise DataError(
                    f"None of {before} clips of role {', '.join(roles)} is permissive. Say so of their collection if "
                    "weights trained on them may be published; else set `data.permissive=false`."
                )
        if not found:
            raise DataError(f"No clip of role {', '.join(roles)} is left. Check `data` in the config.")
        return found


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header.

    Raises:
        DataError: no such file, not UTF-8 text, a column is missing, or a row is cut off.
    """
    if not path.is_file():
        raise DataError(f"There is no label file at {path}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV file in UTF-8: {error}.") from error
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}.")
    for number, row in enumerate(rows, start=1):
        if any(row[column] is None for column in columns):
            raise DataError(f"Row {number} of {path} is cut off: it has fewer fields than the header.")
    return rows


def check_present(listing: Path, clips: Iterable[Clip]) -> None:
    """Raise `DataError` if clips that `listing` names are not on disk."""
    absent = [clip.name for clip in clips if not clip.path.is_file()]
    if absent:
        raise DataError(
            f"{listing} names {len(absent)} clips that are absent, the first: {', '.join(absent[:_NAMED])}."
        )


def _clip(row: dict[str, str], root: Path) -> Clip:
    return Clip(
        path=(root / row["path"]).resolve(),
        name=row["path"],
        set=row["set"],
        role=row["role"],
        labels=split_labels(row["label"], ";"),
        license=row["licence"],
        permissive=row["permissive"] == "1",
        source=row.get("source") or row["set"],
        split=row.get("split") or _fold(row.get("extra") or ""),
    )


def _fold(extra: str) -> str:
    """The number of the fold where `extra` is `fold=N`."""
    key, _, number = extra.partition("=")
    return number if key == "fold" else ""


def split_labels(text: str, separator: str) -> tuple[str, ...]:
    """The labels in a field, each once, in their order."""
    return tuple(dict.fromkeys(label for part in text.split(separator) if (label := part.strip())))


def choose(clips: Iterable[Clip], share: float) -> frozenset[Clip]:
    """Choose a share of clips, rounded down, by a hash of their names: for the same names always the same."""
    ordered = sorted(clips, key=lambda clip: hashlib.sha256(clip.name.encode()).digest())
    return frozenset(ordered[: int(share * len(ordered))])


def classes(clips: Iterable[Clip]) -> tuple[str, ...]:
    """The labels, sorted: the order of a tagging head."""
    return tuple(sorted({label for clip in clips for label in clip.labels}))


def fingerprint(clips: Iterable[Clip], contents: dict[Path, str]) -> str:
    """SHA-256 over the names, labels, channels and contents of the clips, in any order."""
    lines = sorted(
        f"{clip.name},{clip.label},{contents[clip.path]}" + ("" if clip.channel is None else f",{clip.channel}")
        for clip in clips
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
