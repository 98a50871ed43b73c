"""Reads label files as in FSD50K (Fonseca et al., arXiv 2010.00475): fname, labels, and optionally mids and split."""

from pathlib import Path

from training.data.catalog import Clip, DataError, check_present, read_table, split_labels
from training.data.layouts.collection import Collection, audio_files, of_splits


def read_labels(collection: Collection) -> list[Clip]:
    """Read the clips of a label file; several labels of one clip are separated by commas.

    A name may omit its suffix, and is relative to the folder `audio`.

    Raises:
        DataError: no such file, a missing column, a clip without a label, a missing clip, or an ambiguous name.
    """
    listing = Path(collection.path)
    rows = read_table(listing, ("fname", "labels"))
    root = listing.parent / collection.audio
    places = _places(root)
    clips = []
    for row in rows:
        name, labels = row["fname"].strip(), split_labels(row["labels"], ",")
        if not labels:
            raise DataError(f"{listing} has no label for {name}.")
        found = places.get(name, [root / name])  # missing clips are reported together below
        if len(found) > 1:
            raise DataError(
                f"{listing} names {name}, but there are {found[0]} and {found[1]}. Add the suffix to the name."
            )
        clips.append(collection.clip(found[0], name, labels, split=(row.get("split") or "").strip()))
    check_present(listing, clips)
    return of_splits(collection, clips, collection.splits)


def _places(root: Path) -> dict[str, list[Path]]:
    """Map the relative paths of clips below `root`, with and without suffix."""
    places: dict[str, list[Path]] = {}
    for path in audio_files(root):
        inside = path.relative_to(root).as_posix()
        places[inside] = [path]
        places.setdefault(inside[: -len(path.suffix)], []).append(path)
    return places
