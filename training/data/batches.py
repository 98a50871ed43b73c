"""Batches of sources and noises that are addressed by number.

Batch n depends on the seed and on n alone, not on earlier draws. So the sequence is the same for any number of workers,
a run resumes at n without reading earlier audio, and the shards of several processes together are the batch of one
process.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.data.catalog import classes
from training.data.orders import ClassBalanced, WithoutReplacement
from training.data.shard import Shard
from training.data.windows import AudioCache, Window


@dataclass(frozen=True)
class Vocabulary:
    """Classes of a tagging head: C classes of sources, then N classes of noises."""

    sources: tuple[str, ...]
    noises: tuple[str, ...]

    @classmethod
    def of(cls, sources: Sequence[Window], noises: Sequence[Window]) -> "Vocabulary":
        """Collect the labels of windows."""
        return cls(classes(window.clip for window in sources), classes(window.clip for window in noises))

    def __len__(self) -> int:
        """Return C + N."""
        return len(self.sources) + len(self.noises)

    def tags(self, sources: Sequence[Window], noises: Sequence[Window]) -> Tensor:
        """Return multi-hot tags `(batch, C + N)` of mixtures; a clip may have several labels.

        Raises:
            KeyError: a label is not in the vocabulary.
        """
        source_places = {label: place for place, label in enumerate(self.sources)}
        noise_places = {label: place for place, label in enumerate(self.noises, start=len(self.sources))}
        tags = torch.zeros(len(sources), len(self))
        for row, (source, noise) in enumerate(zip(sources, noises, strict=True)):
            tags[row, [source_places[label] for label in source.clip.labels]] = 1
            tags[row, [noise_places[label] for label in noise.clip.labels]] = 1
        return tags


@dataclass(frozen=True)
class Batch:
    """Sounds of one process to mix: row n of `sources` with row n of `noises`."""

    number: int
    sources: Tensor  # (rows, samples)
    noises: Tensor  # (rows, samples)
    tags: Tensor  # (rows, C + N)
    source_windows: tuple[Window, ...]
    noise_windows: tuple[Window, ...]

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to another device; asynchronous if the memory is pinned."""
        return replace(
            self,
            sources=self.sources.to(device, non_blocking=True),
            noises=self.noises.to(device, non_blocking=True),
            tags=self.tags.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        """Copy to pinned memory, for fast copies to a GPU; called by the `DataLoader`."""
        return replace(
            self, sources=self.sources.pin_memory(), noises=self.noises.pin_memory(), tags=self.tags.pin_memory()
        )


class Batches(Dataset[Batch]):
    """Batches of a run: sources balanced by label or by clip, noises without replacement."""

    def __init__(
        self,
        audio: AudioCache,
        sources: Sequence[Window],
        noises: Sequence[Window],
        *,
        size: int,
        seed: int,
        balance: Literal["label", "clip"] = "label",
        shard: Shard = Shard(),  # noqa: B008 (frozen)
    ) -> None:
        """Create the batches.

        Args:
            audio: samples of the windows.
            sources: windows of one length.
            noises: windows of the same length.
            size: number of mixtures in a batch, over all processes.
            seed: seed of both orders, not negative.
            balance: unit of the sources that is drawn equally often: labels or windows.
            shard: rows of this process.

        Raises:
            ValueError: `size` does not divide among the processes.
        """
        self.audio = audio
        self.sources = tuple(sources)
        self.noises = tuple(noises)
        self.vocabulary = Vocabulary.of(self.sources, self.noises)
        self.size = size
        self._rows = shard.rows(size)
        self._source_order: WithoutReplacement | ClassBalanced = (
            WithoutReplacement(len(self.sources), seed, 0)
            if balance == "clip"
            else ClassBalanced([window.clip.labels for window in self.sources], seed)
        )
        self._noise_order = WithoutReplacement(len(self.noises), seed, 2)

    def windows(self, number: int) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
        """Return sources and noises of this process's rows of a batch, without their samples."""
        draws = range(number * self.size, (number + 1) * self.size)[self._rows]
        return (
            tuple(self.sources[self._source_order[draw]] for draw in draws),
            tuple(self.noises[self._noise_order[draw]] for draw in draws),
        )

    def __getitem__(self, number: int) -> Batch:
        """Load this process's rows of batch `number`, from 0 without end."""
        sources, noises = self.windows(number)
        return Batch(
            number,
            self.audio.batch(sources),
            self.audio.batch(noises),
            self.vocabulary.tags(sources, noises),
            sources,
            noises,
        )

    def loader(self, start: int, stop: int, *, workers: int = 0, pin: bool = False) -> DataLoader[Batch]:
        """Create a loader of batches `start` to `stop - 1`.

        Args:
            start: first batch; to resume, the number of batches that were used.
            stop: end of the range, exclusive.
            workers: processes that load batches in advance; 0 loads in this process.
            pin: pinned memory, see `Batch.pin_memory`.
        """
        return DataLoader(
            self,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=workers,
            collate_fn=_identity,
            pin_memory=pin,
            generator=torch.Generator(),  # the default draws from the global generator at each start
        )


def _identity(batch: Any) -> Any:
    return batch
