"""A label file as FSD50K has it (Fonseca et al., arXiv 2010.00475): fname, labels, and mids and split if it likes."""

from pathlib import Path

from training.data.catalog import Clip, DataError, check_present, read_table, split_labels
from training.data.layouts.collection import Collection, audio_files, kept


def read_labels(collection: Collection) -> list[Clip]:
    """Clips of a label file; several labels of one clip are parted by commas.

    A name may come with or without its suffix, and lies below the folder `audio`.

    Raises:
        DataError: no such file, a column is missing, a clip has no label, is absent, or has the name of another.
    """
    listing = Path(collection.path)
    rows = read_table(listing, ("fname", "labels"))
    root = listing.parent / collection.audio
    places = _places(root)
    clips = []
    for row in rows:
        name, labels = row["fname"].strip(), split_labels(row["labels"], ",")
        if not labels:
            raise DataError(f"{listing} gives no label for {name}.")
        found = places.get(name, [root / name])  # an absent clip is reported with all others below
        if len(found) > 1:
            raise DataError(
                f"{listing} names {name}, but there are {found[0]} and {found[1]}. Name one with its suffix."
            )
        clips.append(collection.clip(found[0], name, labels, split=(row.get("split") or "").strip()))
    check_present(listing, clips)
    return kept(collection, clips, collection.splits)


def _places(root: Path) -> dict[str, list[Path]]:
    """Clips below `root` by their relative path, with and without suffix."""
    places: dict[str, list[Path]] = {}
    for path in audio_files(root):
        inside = path.relative_to(root).as_posix()
        places[inside] = [path]
        places.setdefault(inside[: -len(path.suffix)], []).append(path)
    return places
