"""Orders are seeded, balanced, and without replacement."""

from collections import Counter
from itertools import islice
from pathlib import Path

from training.data.catalog import Clip
from training.data.streams import class_balanced, without_replacement
from training.data.windows import Window


def windows(**counts: int) -> list[Window]:
    return [
        Window(
            Clip(Path(f"/{label}{number}"), f"{label}{number}", "s", "source", (label,), "CC0", True, "s"), "c", 0, 1
        )
        for label, count in counts.items()
        for number in range(count)
    ]


def test_every_window_comes_once_before_any_comes_twice() -> None:
    found = windows(hum=7)
    stream = without_replacement(found, seed=0)
    for _ in range(3):
        assert set(islice(stream, 7)) == set(found)


def test_a_seed_repeats_and_another_differs() -> None:
    found = windows(hum=20, buzz=3)
    for order in (without_replacement, class_balanced):
        first, second, other = (list(islice(order(found, seed), 30)) for seed in (4, 4, 5))
        assert first == second
        assert first != other


def test_rare_classes_are_heard_as_often() -> None:
    heard = Counter(window.clip.label for window in islice(class_balanced(windows(hum=95, buzz=5), seed=0), 2_000))
    assert abs(heard["hum"] - heard["buzz"]) < 200
