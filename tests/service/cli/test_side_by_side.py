"""Requests of a folder, a few at once: in order, all told, none lost where one fails."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from service.cli import clips
from service.cli.clips import side_by_side

BATCHES = [[Path(f"{number}.wav")] for number in range(12)]


def tell(told: list[str], answers: Iterable[tuple[list[Path], str]]) -> None:
    for _, answer in answers:
        told.append(answer)


def test_answers_come_in_order_though_requests_run_at_once() -> None:
    together = threading.Barrier(clips._REQUESTS_AT_ONCE)

    def ask(batch: list[Path]) -> str:
        together.wait(10)  # breaks unless so many are asked at once
        return batch[0].name

    assert list(side_by_side(ask, BATCHES)) == [(batch, batch[0].name) for batch in BATCHES]


def test_no_more_are_asked_once_one_failed_and_those_under_way_are_told() -> None:
    asked: list[str] = []

    def ask(batch: list[Path]) -> str:
        asked.append(batch[0].name)
        if batch[0].name == "1.wav":
            raise ValueError("the second is no audio")
        return batch[0].name

    told: list[str] = []
    with pytest.raises(ValueError, match="the second"):
        tell(told, side_by_side(ask, BATCHES))
    # The answer of every request that was sent has come, but that of the one that failed.
    assert sorted(told) == sorted(set(asked) - {"1.wav"})
    assert len(asked) <= clips._REQUESTS_AT_ONCE + 1


def test_batches_that_cannot_be_made_fail_after_what_was_asked() -> None:
    def batches() -> Iterator[list[Path]]:
        yield [Path("a.wav")]
        raise FileNotFoundError("b.wav")

    told: list[str] = []
    with pytest.raises(FileNotFoundError):
        tell(told, side_by_side(lambda batch: batch[0].name, batches()))
    assert told == ["a.wav"]
