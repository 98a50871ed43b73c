"""Hearing everything that an experiment needs: mixtures made once, embedded by every method, kept as cells."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.progress import Progress

from offkey.errors import OffkeyError
from service.domain.distance import Vectors
from training.data.catalog import DataError
from training.evaluation.cells import Cells
from training.evaluation.noise import Noise
from training.evaluation.protocol import Sound, clips_of
from training.evaluation.threads import in_threads
from training.evaluation.tree import JudgedMachine
from training.evaluation.views import Embedded, View


@dataclass(frozen=True)
class Listener:
    """Embeds sounds of machines, and has them at hand afterwards."""

    noise: Noise
    sample_rate: int
    cells: Cells

    def embed(
        self, wanted: Sequence[tuple[JudgedMachine, Sound, Sequence[View]]], workers: int, progress: Progress
    ) -> None:
        """Make the cells that are not there yet, one sound of one machine at a time on each thread.

        Whoever ends the process loses the cells that are being made, one per thread, and no other.

        Args:
            wanted: sounds, and the views that are to hear them.
            workers: threads, each with one CPU thread of the model runtime; 0 is one per core.
            progress: where to draw it.

        Raises:
            DataError: a clip is not usable.
        """
        jobs = []
        for machine, sound, views in wanted:
            key = sound.key(machine, self.noise)
            missing = {view.key: view for view in views if not self.cells.has(view.key, key)}
            if missing:
                jobs.append((machine, sound, key, tuple(missing.values())))
        total = sum(len(clips_of(machine, sound.role)) for machine, sound, *_ in jobs)
        task = progress.add_task("hearing clips", total=total)
        for (machine, sound, *_), _ in in_threads(lambda job: self._hear(*job), jobs, workers):
            progress.advance(task, len(clips_of(machine, sound.role)))

    def embedded(self, view: View, machine: JudgedMachine, sound: Sound) -> Embedded:
        """A cell that `hear` has made."""
        return self.cells.load(view.key, sound.key(machine, self.noise))

    def _hear(self, machine: JudgedMachine, sound: Sound, key: str, views: Sequence[View]) -> None:
        rows: dict[str, list[Vectors]] = {view.key: [] for view in views}
        heard = sound.heard(machine, self.noise, self.sample_rate)
        for clip, samples in zip(clips_of(machine, sound.role), heard, strict=True):
            for view in views:
                try:
                    rows[view.key].append(view.embed(samples))
                except OffkeyError as error:
                    raise DataError(f"{clip.path}: {error.detail}") from error
        for view in views:
            self.cells.save(view.key, key, Embedded.join(rows[view.key]))
