"""The provenance of a student: the checkpoint that it started from, and every clip that it was trained on."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from service.encoder.bundle import MANIFEST_FILE, DataSource, load_manifest
from training.composition.dataset import SET as COMPOSED
from training.config import Config
from training.data.catalog import Clip
from training.data.credits import ATTRIBUTION_FILE, Credit, credit, credits_text, read_credits
from training.run import RUN_FILE, Run
from training.sounds import read_catalog

UNTRAINED = "none, frozen encoder"  # objective of a student without training


@dataclass(frozen=True)
class Provenance:
    """Starting point, training, licenses and credits of a student."""

    start: str  # common name of the first checkpoint
    objective: str
    steps: int
    weights_from: str | None  # bundle with the same weights, if the student was not trained after it
    licenses: tuple[Path, ...]  # license texts that must be copied into the bundle
    credits: tuple[Credit, ...]

    @property
    def data(self) -> tuple[DataSource, ...]:
        """Number of clips by set, license and source."""
        counts = Counter((credit.set, credit.license, credit.source.partition(",")[0]) for credit in self.credits)
        return tuple(
            DataSource(name=name, clips=count, license=license_, attribution=f"{source}; clips in {ATTRIBUTION_FILE}")
            for (name, license_, source), count in sorted(counts.items())
        )

    def attribution_csv(self) -> str:
        """Format the text of `ATTRIBUTION_FILE`."""
        return credits_text(self.credits)


def trace(run: Run, steps: int) -> Provenance:
    """Trace a run back to the published file that it started from, through other runs and bundles.

    Args:
        run: finished run.
        steps: number of training steps of its student. A student of 0 steps that started from a bundle has the training
            of that bundle.

    Raises:
        RunError, ConfigError, DataError, BundleError: a run, file or bundle is incomplete.
    """
    start = _start(run.config, steps)
    clips = trained_clips(run)
    composed = {clip.path.parent.parent for clip in clips if clip.set == COMPOSED}
    owed = {credit(clip) for clip in clips if clip.set != COMPOSED}
    for folder in composed:  # credits of the recordings that the clips are composed of
        owed.update(read_credits(folder / ATTRIBUTION_FILE))
    return replace(start, credits=tuple(sorted({*start.credits, *owed})))


def trained_clips(run: Run) -> list[Clip]:
    """List the clips that a run was trained on. Raises `DataError` if they are missing."""
    names = set(run.about["clips"])
    return [clip for clip in read_catalog(run.config).clips if clip.name in names]


def _start(config: Config, steps: int) -> Provenance:
    path = Path(config.encoder.checkpoint)
    objective = config.objective.kind if steps else UNTRAINED
    if (path / RUN_FILE).is_file():
        before = trace(Run(path), steps=0)
        return Provenance(path.name, objective, steps, None, before.licenses, before.credits)
    if (path / MANIFEST_FILE).is_file():
        manifest = load_manifest(path)
        name, made = f"{manifest.name}/{manifest.version}", manifest.provenance
        known = (_licenses(path), read_credits(path / ATTRIBUTION_FILE))
        if steps:
            return Provenance(name, objective, steps, None, *known)
        return Provenance(made.encoder, made.objective, made.steps, made.weights_from or name, *known)
    return Provenance(path.stem, objective, steps, None, _licenses(path.parent), ())


def _licenses(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("LICENSE*")))
