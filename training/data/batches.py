"""Batches of sources and noises, each found by its number alone.

What batch n holds hangs on the seed and on n, on nothing that was drawn before. So any number of workers gives the
same sequence, a run resumes at n without touching the audio before it, and the shards of several processes are
together the batch that one process would have had.
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
    """The classes of a tagging head: C of sources, then N of noises."""

    sources: tuple[str, ...]
    noises: tuple[str, ...]

    @classmethod
    def of(cls, sources: Sequence[Window], noises: Sequence[Window]) -> "Vocabulary":
        """All labels that these windows have."""
        return cls(classes(window.clip for window in sources), classes(window.clip for window in noises))

    def __len__(self) -> int:
        """C + N."""
        return len(self.sources) + len(self.noises)

    def tags(self, sources: Sequence[Window], noises: Sequence[Window]) -> Tensor:
        """Multi-hot tags `(batch, C + N)` of mixtures of these; a clip may have several labels.

        Raises:
            KeyError: a label that is not known.
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
    """What one process mixes: rows of `sources` and `noises` belong together."""

    number: int
    sources: Tensor  # (rows, samples)
    noises: Tensor  # (rows, samples)
    tags: Tensor  # (rows, C + N)
    source_windows: tuple[Window, ...]
    noise_windows: tuple[Window, ...]

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device; does not wait for the copy where the memory is pinned."""
        return replace(
            self,
            sources=self.sources.to(device, non_blocking=True),
            noises=self.noises.to(device, non_blocking=True),
            tags=self.tags.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        """The same in memory from which a GPU copies; the `DataLoader` calls this."""
        return replace(
            self, sources=self.sources.pin_memory(), noises=self.noises.pin_memory(), tags=self.tags.pin_memory()
        )


class Batches(Dataset[Batch]):
    """All batches of a run: sources balanced by label or by clip, noises without replacement."""

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
        """Fix the order of everything.

        Args:
            audio: where the samples are.
            sources: windows of one length.
            noises: windows of the same length.
            size: mixtures in a batch, over all processes.
            seed: of both orders, not negative.
            balance: draw every label of the sources equally often, or every window.
            shard: which rows this process gets.

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
        """Sources and noises of this process's rows of a batch, without their samples."""
        draws = range(number * self.size, (number + 1) * self.size)[self._rows]
        return (
            tuple(self.sources[self._source_order[draw]] for draw in draws),
            tuple(self.noises[self._noise_order[draw]] for draw in draws),
        )

    def __getitem__(self, number: int) -> Batch:
        """Batch `number`, from 0 without end: the rows of this process."""
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
        """Batches `start` to `stop - 1` in their order, loaded ahead by this many worker processes.

        Args:
            start: the first; to resume, the number of batches that were already used.
            stop: one behind the last.
            workers: 0 loads in this process.
            pin: see `Batch.pin_memory`.
        """
        return DataLoader(
            self,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin,
            generator=torch.Generator(),  # the default takes a number from the global one at each start
        )


def _as_it_is(batch: Any) -> Any:
    return batch
