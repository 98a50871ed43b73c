"""The part of every batch that one of several processes handles."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Process `rank` of `world`; by default the only one."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        """Raises `ValueError` unless 0 <= rank < world."""
        if not 0 <= self.rank < self.world:
            raise ValueError(f"A rank is from 0 to world - 1, not {self.rank} of {self.world}.")

    def rows(self, total: int) -> slice:
        """Which of `total` rows are ours; the shards of all ranks in their order are the whole.

        Raises:
            ValueError: the rows do not divide.
        """
        own, rest = divmod(total, self.world)
        if rest:
            raise ValueError(f"A batch of {total} does not divide among {self.world} processes.")
        return slice(self.rank * own, (self.rank + 1) * own)
