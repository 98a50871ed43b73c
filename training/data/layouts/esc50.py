"""Reads ESC-50 (Piczak, ACM Multimedia 2015): meta/esc50.csv and audio/, five folds."""

from training.data.catalog import Clip, check_present, read_table
from training.data.layouts.collection import Collection, of_splits


def read_esc50(collection: Collection) -> list[Clip]:
    """Read the clips of ESC-50; its splits are the folds 1 to 5. Raises `DataError` if a file or column is missing."""
    listing = collection.root / "meta" / "esc50.csv"
    clips = [
        collection.clip(
            collection.root / "audio" / row["filename"], row["filename"], (row["category"],), split=row["fold"]
        )
        for row in read_table(listing, ("filename", "fold", "category"))
    ]
    check_present(listing, clips)
    return of_splits(collection, clips, collection.splits)
