"""Reads a folder of clips: the label is the subfolder, or the folder's own name."""

from training.data.catalog import Clip
from training.data.layouts.collection import Collection, audio_files


def read_folder(collection: Collection) -> list[Clip]:
    """Read the clips below a folder, at any depth. Raises `DataError` if there is no audio."""
    root = collection.root
    clips = []
    for path in audio_files(root):
        inside = path.relative_to(root)
        label = inside.parts[0] if len(inside.parts) > 1 else root.resolve().name
        clips.append(collection.clip(path, inside.as_posix(), (label,)))
    return clips
