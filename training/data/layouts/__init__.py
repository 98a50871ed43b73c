"""Layouts in which collections of clips come. One file and one line here add another."""

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

_TELLS = ("name", "role", "license", "permissive", "attribution")  # what only a manifest says by itself


@dataclass(frozen=True)
class Layout:
    """How a collection is read, and which keys of `Collection` mean something to it, beside layout and path."""

    read: Callable[[Collection], Iterable[Clip]]
    keys: tuple[str, ...]


LAYOUTS = {
    "manifest": Layout(read_manifest, ()),
    "folder": Layout(read_folder, (*_TELLS, "channel")),
    "labels": Layout(read_labels, (*_TELLS, "audio", "splits")),
    "audioset": Layout(read_audioset, (*_TELLS, "audio")),
    "esc50": Layout(read_esc50, (*_TELLS, "splits")),
    "dcase": Layout(read_dcase, (*_TELLS, "splits", "domains", "channel")),
}


def read_collections(collections: Iterable[Collection]) -> Catalog:
    """All clips of these collections, in their order.

    Raises:
        DataError: a layout is not known, a key means nothing to it, or the collection is not as the layout says.
    """
    clips: list[Clip] = []
    for collection in collections:
        layout = LAYOUTS.get(collection.layout)
        if layout is None:
            near = difflib.get_close_matches(collection.layout, LAYOUTS, n=1, cutoff=0.0)[0]
            raise DataError(
                f"No layout is called {collection.layout!r}; the nearest is {near!r}. There are: {', '.join(LAYOUTS)}."
            )
        default = Collection(layout=collection.layout, path=collection.path)
        idle = [
            key for key, value in vars(collection).items() if value != vars(default)[key] and key not in layout.keys
        ]
        if idle:
            raise DataError(f"{', '.join(idle)} means nothing to the layout {collection.layout!r}. Leave it out.")
        clips.extend(layout.read(collection))
    return Catalog(tuple(clips))
