"""The part of every batch that belongs to one of several processes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Process `rank` of `world` processes; by default the only one."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        """Raise `ValueError` unless 0 <= rank < world."""
        if not 0 <= self.rank < self.world:
            raise ValueError(f"A rank must be from 0 to world - 1, not {self.rank} of {self.world}.")

    def rows(self, total: int) -> slice:
        """Return the slice of `total` rows that belongs to this process; all ranks in order make the whole batch.

        Raises:
            ValueError: the rows do not divide.
        """
        own, rest = divmod(total, self.world)
        if rest:
            raise ValueError(f"A batch of {total} does not divide among {self.world} processes.")
        return slice(self.rank * own, (self.rank + 1) * own)
