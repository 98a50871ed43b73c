"""Embeds the clips of a tree with bundles, and caches the embeddings by content."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from offkey.errors import OffkeyError
from offkey.vocabulary import Domain
from service.audio.decode import AudioLimits, decode
from service.domain import nuisance
from training.data.channels import UnreadableError, read_clip
from training.evaluation.embedders import BundleEmbedder, Embedded
from training.evaluation.embedding_cache import EmbeddingCache
from training.evaluation.noise import ROLES, Role
from training.evaluation.threads import in_threads
from training.evaluation.tree import JudgedClip, JudgedMachine, longest_seconds

_VERSION = 3  # version of the embedding procedure, in the key of the cache


class _Use(NamedTuple):
    """A clip that is enrolled after `enrolled` clips of its domain, or scored if that is None."""

    clip: JudgedClip
    enrolled: int | None
    longest: float  # duration of the longest enrolled clip, in seconds, for a clip to score


def _uses(machine: JudgedMachine, role: Role) -> list[_Use]:
    if role == "test":
        longest = longest_seconds(machine)
        return [_Use(clip, None, longest) for clip in machine.test]
    before, uses = Counter[Domain](), []
    for clip in machine.train:
        uses.append(_Use(clip, before[clip.domain], 0.0))
        before[clip.domain] += 1
    return uses


@dataclass(frozen=True)
class ClipEmbeddings:
    """Embeds clips as the service does, and loads the cached embeddings."""

    embedders: Mapping[str, BundleEmbedder]
    channel: int | None  # channel to embed; None for the mean of all channels, as in the service
    cache: EmbeddingCache

    def embed(self, machines: Sequence[JudgedMachine], workers: int, progress: Progress) -> dict[Path, str]:
        """Embed the clips that are not cached. A killed process loses only the clips in progress.

        Args:
            machines: machines whose train clips are enrolled and whose test clips are scored.
            workers: number of threads, each with one CPU thread of the model runtime; 0 is one per core.
            progress: progress display.

        Returns:
            Paths of clips that could not be embedded, each with the reason.
        """
        uses = [use for machine in machines for role in ROLES for use in _uses(machine, role)]
        task = progress.add_task("embedding clips", total=len(uses))
        refused = {}
        for use, reason in in_threads(self._embed, uses, workers):
            progress.advance(task)
            if reason is not None:
                refused[use.clip.path] = reason
        return refused

    def load(self, name: str, machine: JudgedMachine, whole: JudgedMachine, role: Role) -> Embedded:
        """Load the embedded clips of a bank or a test.

        Args:
            name: name of the bundle.
            machine: machine without the clips that could not be embedded.
            whole: the machine as it was embedded.
            role: whether the clips are enrolled or scored.

        Raises:
            DataError: the cache is damaged.
        """
        embedder, left = self.embedders[name], {clip.path for clip in (*machine.train, *machine.test)}
        loaded = [
            self.cache.load(_key(embedder), self._sound(use)) for use in _uses(whole, role) if use.clip.path in left
        ]
        return Embedded.join(
            clip._replace(pieces=tuple(piece for _, piece in one.pieces)) for one in loaded for clip in one.split()
        )

    def _embed(self, use: _Use) -> str | None:
        clip = use.clip
        try:
            sound = self._sound(use)
            missing = [each for each in self.embedders.values() if not self.cache.has(_key(each), sound)]
            if not missing:
                return None
            limits = AudioLimits()
            data = read_clip(clip.path, self.channel, limits)
            for embedder in missing:
                samples = decode(data, sample_rate=embedder.encoder.sample_rate, limits=limits).samples
                self.cache.save(
                    _key(embedder), sound, Embedded.join([embedder.embed(samples, use.enrolled, use.longest)])
                )
        except OffkeyError as error:
            return error.detail
        except UnreadableError as error:
            return str(error)
        return None

    def _sound(self, use: _Use) -> str:
        pieces = None
        if use.enrolled is not None:
            pieces = (nuisance.VERSION, nuisance.variant_count(use.enrolled), use.enrolled < nuisance.CUT_RECORDINGS)
        try:
            return f"clip {_VERSION} {use.clip.sha256} channel {self.channel} pieces {pieces} longest {use.longest}"
        except OSError as error:
            raise UnreadableError(f"The file cannot be read ({error.strerror}).") from error


def _key(embedder: BundleEmbedder) -> str:
    """Return the key of an embedder in the cache: the graph, the sample rate and the windows."""
    manifest = embedder.encoder.manifest
    return f"{embedder.key} {manifest.input.sample_rate} {manifest.window.model_dump_json()}"
