"""Embeds the clips of a tree with bundles, and caches the embeddings by content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from offkey.errors import OffkeyError
from service.audio.decode import AudioLimits, decode
from training.data.channels import UnreadableError, read_clip
from training.evaluation.embedders import BundleEmbedder, Embedded
from training.evaluation.embedding_cache import EmbeddingCache
from training.evaluation.threads import in_threads
from training.evaluation.tree import JudgedClip

_VERSION = 1  # version of the embedding procedure, in the key of the cache


@dataclass(frozen=True)
class ClipEmbeddings:
    """Embeds clips as the service does, and loads the cached embeddings."""

    embedders: Mapping[str, BundleEmbedder]
    channel: int | None  # channel to embed; None for the mean of all channels, as in the service
    cache: EmbeddingCache

    def embed(self, clips: Sequence[JudgedClip], workers: int, progress: Progress) -> dict[Path, str]:
        """Embed the clips that are not cached. A killed process loses only the clips in progress.

        Args:
            clips: clips to embed.
            workers: number of threads, each with one CPU thread of the model runtime; 0 is one per core.
            progress: progress display.

        Returns:
            Paths of clips that could not be embedded, each with the reason.
        """
        task = progress.add_task("embedding clips", total=len(clips))
        refused = {}
        for clip, reason in in_threads(self._embed, clips, workers):
            progress.advance(task)
            if reason is not None:
                refused[clip.path] = reason
        return refused

    def load(self, name: str, clips: Sequence[JudgedClip]) -> Embedded:
        """Load the windows of embedded clips. Raises `DataError` if the cache is damaged."""
        embedder = self.embedders[name]
        return Embedded.join(self.cache.load(_key(embedder), self._sound(clip)).vectors for clip in clips)

    def _embed(self, clip: JudgedClip) -> str | None:
        try:
            sound = self._sound(clip)
            missing = [each for each in self.embedders.values() if not self.cache.has(_key(each), sound)]
            if not missing:
                return None
            limits = AudioLimits()
            data = read_clip(clip.path, self.channel, limits)
            for embedder in missing:
                samples = decode(data, sample_rate=embedder.encoder.sample_rate, limits=limits).samples
                self.cache.save(_key(embedder), sound, Embedded.join([embedder.embed(samples)]))
        except OffkeyError as error:
            return error.detail
        except UnreadableError as error:
            return str(error)
        return None

    def _sound(self, clip: JudgedClip) -> str:
        try:
            return f"clip {_VERSION} {clip.sha256} channel {self.channel}"
        except OSError as error:
            raise UnreadableError(f"The file cannot be read ({error.strerror}).") from error


def _key(embedder: BundleEmbedder) -> str:
    """Return the key of an embedder in the cache: the graph, the sample rate and the windows."""
    manifest = embedder.encoder.manifest
    return f"{embedder.key} {manifest.input.sample_rate} {manifest.window.model_dump_json()}"
