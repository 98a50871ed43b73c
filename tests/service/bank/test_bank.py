"""Banks: the right vectors, and no more memory or work than needed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from offkey.vocabulary import Domain
from service.bank import Bank, BankRows, Calibration, CalibrationRows
from service.bank import bank as bank_module

MakeRows = Callable[..., BankRows]


def test_the_index_is_built_by_the_first_search_and_once(make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = bank_module.build_index
    monkeypatch.setattr(bank_module, "build_index", lambda *a, **k: built.append(1) or build(*a, **k))
    rows = make_rows(1)
    bank = Bank.of(rows, Calibration.fit(rows, CalibrationRows()), exact_limit=3)
    assert bank.detector.self_scores[Domain.SOURCE].recordings == 6
    assert bank.self_score(3) == bank.detector.self_scores[Domain.SOURCE].scores[3]
    assert not built
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: bank.score(make_rows(2).vectors[:1], 1), range(8)))
    assert len(built) == 1


@pytest.mark.parametrize(
    ("domains", "coreset_windows", "copied"),
    [("SSSSSSSSTTTT", 0, False), ("TTTTSSSSSSSS", 0, False), ("SSSSSTTTTSSS", 0, True), ("SSSSSSSSTTTT", 5, True)],
)
def test_every_domain_has_its_vectors_and_no_others_stay_in_memory(
    make_rows: MakeRows, domains: str, coreset_windows: int, copied: bool
) -> None:
    order = tuple(Domain.SOURCE if letter == "S" else Domain.TARGET for letter in domains)
    rows = replace(make_rows(1, clips=12), domains=order)
    calibration = Calibration.fit(rows, CalibrationRows(), "nearest", coreset_windows)
    bank = Bank.of(rows, calibration, exact_limit=100)
    clips = [clip for clip in rows.clips.tolist() if bank.compares_with(clip)]
    assert len(clips) == (9 if coreset_windows else 12)
    assert bank.nbytes == len(clips) * 8 * 4
    for clip in clips:
        own = bank._domains[order[clip]]
        np.testing.assert_array_equal(own.vectors[own.clips == clip], rows.vectors[[clip]])
    for own in bank._domains.values():
        assert np.shares_memory(own.vectors, rows.vectors) != copied
