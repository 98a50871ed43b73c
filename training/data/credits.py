"""Credits of the clips that a data set or a bundle was made of, as a CSV file."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from training.data.catalog import Clip, read_table

ATTRIBUTION_FILE = "ATTRIBUTION.csv"


class Credit(NamedTuple):
    """One line of the file: a clip, its license, its source, and its page if there is one."""

    set: str
    clip: str
    license: str
    source: str
    page: str


def credit(clip: Clip) -> Credit:
    """Create the credit of a clip."""
    # ESC-50 names clips `<fold>-<freesound number>-<take>-<class>`.
    page = f"https://freesound.org/s/{clip.path.stem.split('-')[1]}/" if clip.set == "esc50" else ""
    return Credit(clip.set, clip.name, clip.license, clip.source, page)


def credits_text(credits_: Iterable[Credit]) -> str:
    """Format credits as CSV with a header, sorted and without duplicates."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Credit._fields)
    writer.writerows(sorted(set(credits_)))
    return text.getvalue()


def write_credits(path: Path, credits_: Iterable[Credit]) -> None:
    """Write credits to a file."""
    path.write_text(credits_text(credits_), encoding="utf-8")


def read_credits(path: Path) -> tuple[Credit, ...]:
    """Read a file of credits. Raises `DataError` if it is missing or truncated."""
    return tuple(Credit(*(row[field] for field in Credit._fields)) for row in read_table(path, Credit._fields))
