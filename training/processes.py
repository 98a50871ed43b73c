"""The processes of a run: one, or several that torchrun started, each with a part of every batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from training.config import ConfigError
from training.data.shard import Shard

# One process may decode a large collection while the others wait. torchrun ends all of them if one fails.
_TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """Communication between the processes of a run. With one process every method does nothing."""

    shard: Shard
    device: torch.device

    @property
    def first(self) -> bool:
        """Return whether this is the first process, which writes the run folder."""
        return self.shard.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Compute the mean over all processes."""
        if self.shard.world > 1:
            values = values.clone()
            distributed.all_reduce(values)
            values /= self.shard.world
        return values

    def share(self, value: Tensor) -> None:
        """Overwrite `value` with the value of the first process."""
        if self.shard.world > 1:
            distributed.broadcast(value, src=0)

    def share_text(self, text: str) -> str:
        """Return the text of the first process."""
        box = [text]
        if self.shard.world > 1:
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run a block in the first process, then in the others, which find its cache filled."""
        if not self.first:
            distributed.barrier()
        yield
        if self.first and self.shard.world > 1:
            distributed.barrier()


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun started, if any, and leave them at the end of the block.

    Args:
        device: `cpu`, `cuda`, or `auto` for a GPU if there is one.

    Raises:
        ConfigError: the device is `cuda` and there is no GPU.
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
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    try:
        yield Processes(Shard(distributed.get_rank(), world), chosen)
    finally:
        distributed.destroy_process_group()
