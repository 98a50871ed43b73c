"""Embeds everything that an experiment needs: each mixture is made once, embedded by every method, and cached."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.progress import Progress

from offkey.errors import OffkeyError
from offkey.vocabulary import Domain
from training.data.catalog import DataError
from training.evaluation.embedders import ClipEmbedding, Embedded, Embedder
from training.evaluation.embedding_cache import EmbeddingCache
from training.evaluation.noise import Noise
from training.evaluation.protocol import Sound, clips_of
from training.evaluation.threads import in_threads
from training.evaluation.tree import JudgedMachine, longest_seconds


@dataclass(frozen=True)
class MachineEmbeddings:
    """Embeds sounds of machines, and loads the cached embeddings."""

    noise: Noise
    sample_rate: int
    cache: EmbeddingCache

    def embed(
        self, wanted: Sequence[tuple[JudgedMachine, Sound, Sequence[Embedder]]], workers: int, progress: Progress
    ) -> None:
        """Embed the sounds that are not cached, one sound of one machine at a time on each thread.

        A killed process loses only the sounds in progress, one per thread.

        Args:
            wanted: sounds of machines, each with the embedders that it is for.
            workers: number of threads, each with one CPU thread of the model runtime; 0 is one per core.
            progress: progress display.

        Raises:
            DataError: a clip cannot be used.
        """
        jobs = []
        for machine, sound, embedders in wanted:
            key = sound.key(machine, self.noise)
            missing = {embedder.key: embedder for embedder in embedders if not self.cache.has(embedder.key, key)}
            if missing:
                jobs.append((machine, sound, key, tuple(missing.values())))
        total = sum(len(clips_of(machine, sound.role)) for machine, sound, *_ in jobs)
        task = progress.add_task("embedding clips", total=total)
        for (machine, sound, *_), _ in in_threads(lambda job: self._embed(*job), jobs, workers):
            progress.advance(task, len(clips_of(machine, sound.role)))

    def load(self, embedder: Embedder, machine: JudgedMachine, sound: Sound) -> Embedded:
        """Load the embeddings of a sound that was embedded before."""
        return self.cache.load(embedder.key, sound.key(machine, self.noise))

    def _embed(self, machine: JudgedMachine, sound: Sound, key: str, embedders: Sequence[Embedder]) -> None:
        rows: dict[str, list[ClipEmbedding]] = {embedder.key: [] for embedder in embedders}
        waveforms = sound.waveforms(machine, self.noise, self.sample_rate)
        before = Counter[Domain]()
        longest = longest_seconds(machine) if sound.role == "test" else 0.0
        for clip, samples in zip(clips_of(machine, sound.role), waveforms, strict=True):
            enrolled = before[clip.domain] if sound.role == "bank" else None
            before[clip.domain] += 1
            for embedder in embedders:
                try:
                    rows[embedder.key].append(embedder.embed(samples, enrolled, longest))
                except OffkeyError as error:
                    raise DataError(f"{clip.path}: {error.detail}") from error
        for embedder in embedders:
            self.cache.save(embedder.key, key, Embedded.join(rows[embedder.key]))
