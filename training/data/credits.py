"""Whom the clips that were heard are owed to, in a CSV file beside what was made of them."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from training.data.catalog import Clip, read_table

ATTRIBUTION_FILE = "ATTRIBUTION.csv"


class Credit(NamedTuple):
    """A line: a clip, its terms, whom to credit, and its page if it has one."""

    set: str
    clip: str
    license: str
    source: str
    page: str


def credit(clip: Clip) -> Credit:
    """What a clip owes."""
    # ESC-50 names clips `<fold>-<freesound number>-<take>-<class>`.
    page = f"https://freesound.org/s/{clip.path.stem.split('-')[1]}/" if clip.set == "esc50" else ""
    return Credit(clip.set, clip.name, clip.license, clip.source, page)


def credits_text(credits_: Iterable[Credit]) -> str:
    """CSV with a header, each credit once, sorted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Credit._fields)
    writer.writerows(sorted(set(credits_)))
    return text.getvalue()


def write_credits(path: Path, credits_: Iterable[Credit]) -> None:
    """Write them to a file."""
    path.write_text(credits_text(credits_), encoding="utf-8")


def read_credits(path: Path) -> tuple[Credit, ...]:
    """Read what `write_credits` wrote. Raises `DataError` if it is absent or cut off."""
    return tuple(Credit(*(row[field] for field in Credit._fields)) for row in read_table(path, Credit._fields))
