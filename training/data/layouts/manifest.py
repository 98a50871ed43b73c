"""Reads CSV manifests with the columns of `Catalog.from_csv`."""

from pathlib import Path

from training.data.catalog import Catalog, Clip
from training.data.layouts.collection import Collection


def read_manifest(collection: Collection) -> tuple[Clip, ...]:
    """Read the clips of a manifest. Raises `DataError` as `Catalog.from_csv` does."""
    return Catalog.from_csv(Path(collection.path)).clips
