"""Where a student comes from: the checkpoint it started at, and every clip that it and its starts have heard."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from service.encoder.bundle import MANIFEST_FILE, DataSource, load_manifest
from training.composition.dataset import SET as COMPOSED
from training.config import Config
from training.data.catalog import Clip
from training.data.credits import ATTRIBUTION_FILE, Credit, credit, credits_text, read_credits
from training.run import RUN_FILE, Run
from training.sounds import read_catalog


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
        return credits_text(self.credits)


def trace(run: Run) -> Origin:
    """Follow a run to the published file that it began with, through other runs and bundles.

    Raises:
        RunError, ConfigError, DataError, BundleError: one of them is not complete.
    """
    start = _start(run.config)
    clips = heard(run)
    composed = {clip.path.parent.parent for clip in clips if clip.set == COMPOSED}
    owed = {credit(clip) for clip in clips if clip.set != COMPOSED}
    for folder in composed:  # what is composed owes what it is composed of
        owed.update(read_credits(folder / ATTRIBUTION_FILE))
    return Origin(start.start, start.licenses, tuple(sorted({*start.credits, *owed})))


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
        return Origin(f"{manifest.name}/{manifest.version}", _licenses(path), read_credits(path / ATTRIBUTION_FILE))
    return Origin(path.stem, _licenses(path.parent), ())


def _licenses(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("LICENSE*")))
