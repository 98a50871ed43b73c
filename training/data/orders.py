"""Endless, seeded orders of windows in which any draw is found at once: a run resumes without replaying."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class WithoutReplacement:
    """Everything once in random order, then again in another: noise in arXiv 2510.25182 is drawn so."""

    def __init__(self, count: int, *seed: int) -> None:
        if count < 1:
            raise ValueError("There is nothing to draw from.")
        self.count = count
        self.seed = seed
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def __getitem__(self, draw: int) -> int:
        """The index drawn; costs a permutation when the epoch is another than that of the last draw."""
        epoch, place = divmod(draw, self.count)
        if epoch != self._epoch:
            self._permutation = np.random.default_rng([*self.seed, epoch]).permutation(self.count)
            self._epoch = epoch
        return int(self._permutation[place])


class ClassBalanced:
    """Every class once in random order, then again in another; of a class its members without replacement.

    So after any number of whole rounds all classes were drawn equally often, and the n-th round takes the n-th
    member of each. A thing of several classes is a member of each of them.
    """

    def __init__(self, labels: Sequence[Sequence[str]], seed: int) -> None:
        """`labels`: the classes of each thing."""
        members: dict[str, list[int]] = {}
        for index, own in enumerate(labels):
            for label in own:
                members.setdefault(label, []).append(index)
        self._members = [members[label] for label in sorted(members)]
        self._rounds = WithoutReplacement(len(members), seed, 0)
        self._within = [WithoutReplacement(len(own), seed, 1, number) for number, own in enumerate(self._members)]

    def __getitem__(self, draw: int) -> int:
        """The index drawn."""
        chosen = self._rounds[draw]
        return self._members[chosen][self._within[chosen][draw // len(self._members)]]
