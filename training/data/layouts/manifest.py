"""A CSV manifest: path, set, role, label, licence, permissive, and source if there is one to credit."""

from pathlib import Path

from training.data.catalog import Catalog, Clip
from training.data.layouts.collection import Collection


def read_manifest(collection: Collection) -> tuple[Clip, ...]:
    """Clips of a manifest. Raises `DataError` as `Catalog.from_csv` does."""
    return Catalog.from_csv(Path(collection.path)).clips
