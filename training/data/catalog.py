"""Catalogs of clips: reading a manifest, and selecting clips."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("path", "set", "role", "label", "licence", "permissive")
_NAMED = 3  # missing clips that an error names


class DataError(Exception):
    """A manifest, a folder or a selection of clips cannot be used."""


@dataclass(frozen=True)
class Clip:
    """One recording, or one channel of it."""

    path: Path  # absolute path
    name: str  # path inside its collection
    set: str
    role: str
    labels: tuple[str, ...]  # one or more labels
    license: str
    permissive: bool  # whether weights that were trained on it may be published
    source: str  # attribution
    split: str = ""  # split of the collection: train, test, a fold
    domain: str = ""  # DCASE: source, target, or noise in supplemental clips
    condition: str = ""  # DCASE: normal, anomaly; empty if the name does not contain it
    channel: int | None = None  # None for the mean of all channels

    @property
    def label(self) -> str:
        """All labels, joined for messages and fingerprints."""
        return ";".join(self.labels)


@dataclass(frozen=True)
class Catalog:
    """Clips of one or more collections, in order."""

    clips: tuple[Clip, ...]

    @classmethod
    def from_csv(cls, manifest: Path) -> "Catalog":
        """Read a manifest; its paths are relative to its folder, and several labels are separated by `;`.

        Raises:
            DataError: no such file, a missing column, a row without a label, or a missing clip.
        """
        if not manifest.is_file():
            raise DataError(f"There is no data manifest at {manifest}. Set `data.manifest=PATH`.")
        rows = read_table(manifest, COLUMNS)
        clips = tuple(_clip(row, manifest.parent) for row in rows)
        unlabeled = next((clip.name for clip in clips if not clip.labels), None)
        if unlabeled is not None:
            raise DataError(f"{manifest} has no label for {unlabeled}.")
        check_present(manifest, clips)
        return cls(clips)

    def select(
        self, *, roles: Sequence[str], labels: Sequence[str] = (), without: Sequence[str] = (), permissive: bool
    ) -> tuple[Clip, ...]:
        """Select clips by role, label and license.

        Args:
            roles: roles of the clips.
            labels: labels of which a clip must have at least one; empty selects all.
            without: labels of which a clip must have none.
            permissive: whether to select only clips whose license allows publishing the weights.

        Raises:
            DataError: no clip has one of the labels, or the selection is empty.
        """
        present = {label for clip in self.clips if clip.role in roles for label in clip.labels}
        unknown = sorted({*labels, *without} - present)
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
                    f"None of {before} clips of role {', '.join(roles)} is permissive. Mark their collection as "
                    "permissive if weights trained on them may be published; otherwise set `data.permissive=false`."
                )
        if not found:
            raise DataError(f"No clip of role {', '.join(roles)} is left. Check `data` in the config.")
        return found


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV file with a header.

    Raises:
        DataError: no such file, not UTF-8 text, a missing column, or a truncated row.
    """
    if not path.is_file():
        raise DataError(f"There is no label file at {path}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}.")
    for number, row in enumerate(rows, start=1):
        if any(row[column] is None for column in columns):
            raise DataError(f"Row {number} of {path} is truncated: it has fewer fields than the header.")
    return rows


def check_present(listing: Path, clips: Iterable[Clip]) -> None:
    """Raise `DataError` if clips of `listing` are not on disk."""
    absent = [clip.name for clip in clips if not clip.path.is_file()]
    if absent:
        raise DataError(
            f"{listing} names {len(absent)} missing clips; the first ones are {', '.join(absent[:_NAMED])}."
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
    """Return the number of the fold if `extra` is `fold=N`."""
    key, _, number = extra.partition("=")
    return number if key == "fold" else ""


def split_labels(text: str, separator: str) -> tuple[str, ...]:
    """Split a field into labels, without duplicates, in order."""
    return tuple(dict.fromkeys(label for part in text.split(separator) if (label := part.strip())))


def choose(clips: Iterable[Clip], share: float) -> frozenset[Clip]:
    """Choose a share of clips, rounded down, by a hash of their names; the choice depends on the names alone."""
    ordered = sorted(clips, key=lambda clip: hashlib.sha256(clip.name.encode()).digest())
    return frozenset(ordered[: int(share * len(ordered))])


def classes(clips: Iterable[Clip]) -> tuple[str, ...]:
    """List the labels, sorted as in a tagging head."""
    return tuple(sorted({label for clip in clips for label in clip.labels}))


def fingerprint(clips: Iterable[Clip], contents: dict[Path, str]) -> str:
    """Hash the names, labels, channels and contents of clips (SHA-256), independent of their order."""
    lines = sorted(
        f"{clip.name},{clip.label},{contents[clip.path]}" + ("" if clip.channel is None else f",{clip.channel}")
        for clip in clips
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
