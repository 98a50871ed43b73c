"""Requests for a folder, a few at a time: answers in order, and none lost after an error."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from service.cli import clips
from service.cli.clips import send_all

BATCHES = [[Path(f"{number}.wav")] for number in range(12)]


def collect(names: list[str], answers: Iterable[tuple[list[Path], str]]) -> None:
    for _, answer in answers:
        names.append(answer)


def test_answers_come_in_order_though_requests_run_at_once() -> None:
    together = threading.Barrier(clips._REQUESTS_AT_ONCE)

    def send(batch: list[Path]) -> str:
        together.wait(10)  # breaks unless so many are sent at the same time
        return batch[0].name

    assert list(send_all(send, BATCHES)) == [(batch, batch[0].name) for batch in BATCHES]


def test_after_an_error_no_more_are_sent_and_answers_under_way_are_yielded() -> None:
    sent: list[str] = []

    def send(batch: list[Path]) -> str:
        sent.append(batch[0].name)
        if batch[0].name == "1.wav":
            raise ValueError("the second is no audio")
        return batch[0].name

    found: list[str] = []
    with pytest.raises(ValueError, match="the second"):
        collect(found, send_all(send, BATCHES))
    # Each request that was sent has an answer, except for the one that failed.
    assert sorted(found) == sorted(set(sent) - {"1.wav"})
    assert len(sent) <= clips._REQUESTS_AT_ONCE + 1


def test_an_error_in_the_batches_is_raised_after_the_answers() -> None:
    def batches() -> Iterator[list[Path]]:
        yield [Path("a.wav")]
        raise FileNotFoundError("b.wav")

    found: list[str] = []
    with pytest.raises(FileNotFoundError):
        collect(found, send_all(lambda batch: batch[0].name, batches()))
    assert found == ["a.wav"]
