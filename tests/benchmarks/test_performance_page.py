"""docs/measurements/performance.md shows the committed results."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("performance_page")


def test_its_figures_are_those_of_the_results(page: ModuleType) -> None:
    written = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(written) == written, "write it again: python benchmarks/performance_page.py"


def test_every_table_is_shown_once(page: ModuleType) -> None:
    written = page.PAGE.read_text(encoding="utf-8")
    assert [written.count(f"<!-- measured: {name} -->") for name in page.BLOCKS] == [1] * len(page.BLOCKS)


def test_another_result_changes_the_page(page: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    written = page.PAGE.read_text(encoding="utf-8")
    found = page.result("enrollment")
    found["clips_per_s"]["enroll"] = 12_345.0
    known = page.result
    monkeypatch.setattr(page, "result", lambda name: found if name == "enrollment" else known(name))
    assert "12345" in page.filled(written)
    assert "12345" not in written
