"""Endless, seeded orders of windows with random access, so that a run resumes without replaying draws."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class WithoutReplacement:
    """Draws without replacement, then again in another order, as noise is drawn in arXiv 2510.25182."""

    def __init__(self, count: int, *seed: int) -> None:
        if count < 1:
            raise ValueError("There is nothing to draw from.")
        self.count = count
        self.seed = seed
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def __getitem__(self, draw: int) -> int:
        """Return the index of a draw; computes a permutation if the epoch differs from that of the previous draw."""
        epoch, place = divmod(draw, self.count)
        if epoch != self._epoch:
            self._permutation = np.random.default_rng([*self.seed, epoch]).permutation(self.count)
            self._epoch = epoch
        return int(self._permutation[place])


class ClassBalanced:
    """Draws every class once per round in random order, and the members of a class without replacement.

    After whole rounds all classes were drawn equally often. Round n draws the n-th member of each class. An item with
    several classes is a member of each of them.
    """

    def __init__(self, labels: Sequence[Sequence[str]], seed: int) -> None:
        """Create the order from the classes of each item."""
        members: dict[str, list[int]] = {}
        for index, own in enumerate(labels):
            for label in own:
                members.setdefault(label, []).append(index)
        self._members = [members[label] for label in sorted(members)]
        self._rounds = WithoutReplacement(len(members), seed, 0)
        self._within = [WithoutReplacement(len(own), seed, 1, number) for number, own in enumerate(self._members)]

    def __getitem__(self, draw: int) -> int:
        """Return the index of a draw."""
        chosen = self._rounds[draw]
        return self._members[chosen][self._within[chosen][draw // len(self._members)]]
