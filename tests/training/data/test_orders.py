"""Orders are seeded, balanced, without replacement, and any draw is found at once."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.orders import ClassBalanced, WithoutReplacement

LABELS = st.lists(st.sets(st.sampled_from("abcd"), min_size=1).map(sorted), min_size=1, max_size=12)


@given(count=st.integers(1, 40), seed=st.integers(0, 2**40), epoch=st.integers(0, 2**20))
def test_everything_comes_once_before_anything_comes_twice(count: int, seed: int, epoch: int) -> None:
    order = WithoutReplacement(count, seed)
    assert sorted(order[draw] for draw in range(epoch * count, (epoch + 1) * count)) == list(range(count))


@given(labels=LABELS, seed=st.integers(0, 2**40), start=st.integers(0, 10**6))
def test_every_round_takes_one_of_each_class(labels: list[list[str]], seed: int, start: int) -> None:
    names = sorted({label for own in labels for label in own})
    order = ClassBalanced(labels, seed)
    drawn = [labels[order[draw]] for draw in range(start * len(names), (start + 1) * len(names))]
    assert _covers(names, drawn)


@given(sizes=st.lists(st.integers(1, 8), min_size=1, max_size=5), seed=st.integers(0, 2**40), rounds=st.integers(1, 40))
def test_within_a_class_everything_comes_once_before_anything_comes_twice(
    sizes: list[int], seed: int, rounds: int
) -> None:
    labels = [[str(number)] for number, size in enumerate(sizes) for _ in range(size)]
    order = ClassBalanced(labels, seed)
    counts = Counter(order[draw] for draw in range(rounds * len(sizes)))
    for index, (label,) in enumerate(labels):
        size = sizes[int(label)]
        assert rounds // size <= counts[index] <= -(-rounds // size)


def _covers(names: list[str], drawn: list[list[str]]) -> bool:
    if not names:
        return True
    return any(
        names[0] in own and _covers(names[1:], drawn[:place] + drawn[place + 1 :]) for place, own in enumerate(drawn)
    )


@given(labels=LABELS, seed=st.integers(0, 2**40), draws=st.lists(st.integers(0, 10**9), max_size=20))
def test_a_draw_hangs_on_the_seed_alone_not_on_what_was_drawn_before(
    labels: list[list[str]], seed: int, draws: list[int]
) -> None:
    for used, fresh in (
        (ClassBalanced(labels, seed), lambda: ClassBalanced(labels, seed)),
        (WithoutReplacement(len(labels), seed), lambda: WithoutReplacement(len(labels), seed)),
    ):
        assert [used[draw] for draw in draws] == [fresh()[draw] for draw in draws]


def test_seeds_classes_and_epochs_differ() -> None:
    epochs = [[WithoutReplacement(30, seed)[draw] for draw in range(60)] for seed in (0, 1)]
    assert epochs[0] != epochs[1]
    assert epochs[0][:30] != epochs[0][30:]
    labels = [["a"]] * 30 + [["b"]] * 30
    balanced = ClassBalanced(labels, 0)
    drawn = [balanced[draw] for draw in range(60)]
    assert [index for index in drawn if index < 30] != [index - 30 for index in drawn if index >= 30]


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        WithoutReplacement(0, 1)
    with pytest.raises(ValueError, match="nothing to draw"):
        ClassBalanced([], 1)
