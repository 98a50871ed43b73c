"""Reads AudioSet's segment files (Gemmeke et al., ICASSP 2017): YouTube id, start, end, labels as machine ids."""

import csv
from pathlib import Path

from training.data.catalog import Clip, DataError, check_present, read_table, split_labels
from training.data.layouts.collection import Collection, audio_files

_NAMES = "class_labels_indices.csv"


def read_audioset(collection: Collection) -> list[Clip]:
    """Read the clips of a segment file in the folder of `class_labels_indices.csv`.

    A clip below the folder `audio` has its id as name, with or without a leading Y.

    Raises:
        DataError: a missing file, a damaged row, an unknown label, or a missing clip.
    """
    listing = Path(collection.path)
    names = {row["mid"]: row["display_name"] for row in read_table(listing.parent / _NAMES, ("mid", "display_name"))}
    root = listing.parent / collection.audio
    places = {path.stem: path for path in audio_files(root)}
    clips = []
    for number, (video, mids) in _rows(listing):
        unknown = [mid for mid in mids if mid not in names]
        if unknown or not mids:
            raise DataError(
                f"Line {number} of {listing} has the label {', '.join(unknown) or '(none)'}, which is not in {_NAMES}."
            )
        path = places.get(video) or places.get(f"Y{video}") or root / f"{video}.wav"
        clips.append(collection.clip(path, video, tuple(names[mid] for mid in mids)))
    check_present(listing, clips)
    return clips


def _rows(listing: Path) -> list[tuple[int, tuple[str, tuple[str, ...]]]]:
    """Read line number, id and machine ids of each segment; lines that begin with # are comments."""
    if not listing.is_file():
        raise DataError(f"There is no segment file at {listing}.")
    rows = []
    with listing.open(newline="", encoding="utf-8") as file:
        for number, fields in enumerate(csv.reader(file, skipinitialspace=True), start=1):
            if not fields or fields[0].startswith("#"):
                continue
            if len(fields) != 4:
                raise DataError(f"Line {number} of {listing} has {len(fields)} fields, not 4: id, start, end, labels.")
            rows.append((number, (fields[0], split_labels(fields[3], ","))))
    return rows
