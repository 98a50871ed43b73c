"""Endless, seeded orders of windows."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from training.data.windows import Window


def without_replacement(windows: Sequence[Window], seed: int) -> Iterator[Window]:
    """Every window once in random order, then again in another: noise in arXiv 2510.25182 is drawn so."""
    rng = np.random.default_rng(seed)
    while True:
        for index in rng.permutation(len(windows)):
            yield windows[index]


def class_balanced(windows: Sequence[Window], seed: int) -> Iterator[Window]:
    """A class drawn at random, then the next of its windows without replacement."""
    by_label: dict[str, list[Window]] = defaultdict(list)
    for window in windows:
        for label in window.clip.labels:
            by_label[label].append(window)
    labels = sorted(by_label)
    rng = np.random.default_rng(seed)
    seeds = rng.integers(2**63, size=len(labels))
    orders = [without_replacement(by_label[label], int(own)) for label, own in zip(labels, seeds, strict=True)]
    while True:
        yield next(orders[rng.integers(len(labels))])
