"""One process, or several that torchrun started, each with a part of every batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from training.config import ConfigError
from training.data.shard import Shard

# Long enough for one process to decode a large collection while the others wait. torchrun ends all when one dies.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """One process among its equals. With one process everything here does nothing."""

    shard: Shard
    device: torch.device

    @property
    def first(self) -> bool:
        """Is this the one that writes?"""
        return self.shard.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all processes."""
        if self.shard.world > 1:
            values = values.clone()
            distributed.all_reduce(values)
            values /= self.shard.world
        return values

    def share(self, value: Tensor) -> None:
        """Overwrite `value` with that of the first process."""
        if self.shard.world > 1:
            distributed.broadcast(value, src=0)

    def share_text(self, text: str) -> str:
        """The text that the first process has."""
        box = [text]
        if self.shard.world > 1:
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process runs the block alone, then the others: they find its cache filled."""
        if not self.first:
            distributed.barrier()
        yield
        if self.first and self.shard.world > 1:
            distributed.barrier()


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join those that torchrun started, if it did, and leave them again.

    Args:
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.

    Raises:
        ConfigError: a GPU was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("`loop.device` is cuda, but PyTorch finds no GPU. Set loop.device=cpu, or auto.")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Processes(Shard(), chosen)
        return
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(Shard(distributed.get_rank(), world), chosen)
    finally:
        distributed.destroy_process_group()
