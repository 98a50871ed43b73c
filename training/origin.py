"""Where a student comes from: the checkpoint it started at, and every clip that it and its starts have heard."""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from service.manifest import MANIFEST_FILE, DataSource, load_manifest
from training.config import Config
from training.data.catalog import Clip, read_table
from training.run import RUN_FILE, Run
from training.sounds import read_catalog

ATTRIBUTION_FILE = "ATTRIBUTION.csv"


class Credit(NamedTuple):
    """A line of `ATTRIBUTION_FILE`: a clip, its terms, whom to credit, and its page if it has one."""

    set: str
    clip: str
    license: str
    source: str
    page: str


@dataclass(frozen=True)
class Origin:
    """What a bundle owes."""

    start: str  # the checkpoint, by the name people know it under
    licenses: tuple[Path, ...]  # texts that travel with what was made from it
    credits: tuple[Credit, ...]

    @property
    def data(self) -> tuple[DataSource, ...]:
        """Clips counted by set, license and source."""
        counts = Counter((credit.set, credit.license, credit.source.partition(",")[0]) for credit in self.credits)
        return tuple(
            DataSource(name=name, clips=count, license=license_, attribution=f"{source}; clips in {ATTRIBUTION_FILE}")
            for (name, license_, source), count in sorted(counts.items())
        )

    def attribution_csv(self) -> str:
        """The text of `ATTRIBUTION_FILE`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Credit._fields)
        writer.writerows(self.credits)
        return text.getvalue()


def trace(run: Run) -> Origin:
    """Follow a run to the published file that it began with, through other runs and bundles.

    Raises:
        RunError, ConfigError, DataError, BundleError: one of them is not complete.
    """
    start = _start(run.config)
    return Origin(start.start, start.licenses, tuple(sorted({*start.credits, *map(_credit, heard(run))})))


def heard(run: Run) -> list[Clip]:
    """The clips of a run. Raises `DataError` if they are gone."""
    names = set(run.about["clips"])
    return [clip for clip in read_catalog(run.config).clips if clip.name in names]


def _start(config: Config) -> Origin:
    path = Path(config.encoder.checkpoint)
    if (path / RUN_FILE).is_file():
        before = trace(Run(path))
        return Origin(path.name, before.licenses, before.credits)
    if (path / MANIFEST_FILE).is_file():
        manifest = load_manifest(path)
        rows = read_table(path / ATTRIBUTION_FILE, Credit._fields)
        credits_ = tuple(Credit(*(row[field] for field in Credit._fields)) for row in rows)
        return Origin(f"{manifest.name}/{manifest.version}", _licenses(path), credits_)
    return Origin(path.stem, _licenses(path.parent), ())


def _licenses(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("LICENSE*")))


def _credit(clip: Clip) -> Credit:
    # ESC-50 names clips `<fold>-<freesound number>-<take>-<class>`.
    page = f"https://freesound.org/s/{clip.path.stem.split('-')[1]}/" if clip.set == "esc50" else ""
    return Credit(clip.set, clip.name, clip.license, clip.source, page)
