"""Layouts of collections of clips. A new layout needs one file and one line here."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from training.data.catalog import Catalog, Clip, DataError
from training.data.layouts.audioset import read_audioset
from training.data.layouts.collection import Collection
from training.data.layouts.dcase import read_dcase
from training.data.layouts.esc50 import read_esc50
from training.data.layouts.folder import read_folder
from training.data.layouts.labels import read_labels
from training.data.layouts.manifest import read_manifest

_DESCRIPTION = ("name", "role", "license", "permissive", "attribution")  # a manifest has these itself


@dataclass(frozen=True)
class Layout:
    """A reader of collections, and the keys of `Collection` that it uses in addition to layout and path."""

    read: Callable[[Collection], Iterable[Clip]]
    keys: tuple[str, ...]


LAYOUTS = {
    "manifest": Layout(read_manifest, ()),
    "folder": Layout(read_folder, (*_DESCRIPTION, "channel")),
    "labels": Layout(read_labels, (*_DESCRIPTION, "audio", "splits")),
    "audioset": Layout(read_audioset, (*_DESCRIPTION, "audio")),
    "esc50": Layout(read_esc50, (*_DESCRIPTION, "splits")),
    "dcase": Layout(read_dcase, (*_DESCRIPTION, "splits", "domains", "channel")),
}


def read_collections(collections: Iterable[Collection]) -> Catalog:
    """Read the clips of collections, in order.

    Raises:
        DataError: an unknown layout, a key that the layout does not use, or files that do not match the layout.
    """
    clips: list[Clip] = []
    for collection in collections:
        layout = LAYOUTS.get(collection.layout)
        if layout is None:
            near = difflib.get_close_matches(collection.layout, LAYOUTS, n=1, cutoff=0.0)[0]
            raise DataError(
                f"There is no layout {collection.layout!r}; the nearest is {near!r}. Layouts: {', '.join(LAYOUTS)}."
            )
        default = Collection(layout=collection.layout, path=collection.path)
        unused = [
            key for key, value in vars(collection).items() if value != vars(default)[key] and key not in layout.keys
        ]
        if unused:
            raise DataError(f"{', '.join(unused)} is not used by the layout {collection.layout!r}. Remove it.")
        clips.extend(layout.read(collection))
    return Catalog(tuple(clips))
