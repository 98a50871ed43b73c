"""The backends of benchmarks/candidates.py, which are measured and not served."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from offkey.vocabulary import Domain
from service.domain import backends as backends_module
from service.domain.detector import Detector
from service.domain.distance import Near, Vectors, nearest_rows

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SOURCE, TARGET = Domain.SOURCE, Domain.TARGET
NAMES = pytest.mark.parametrize("name", ["density-difference", "pca-residual"])


@pytest.fixture
def candidates(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Register the candidates for one test."""
    served = dict(backends_module.BACKENDS)
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("candidates")
    monkeypatch.setattr(module, "BACKENDS", served)
    monkeypatch.setattr("service.domain.detector.BACKENDS", served)
    module.register()
    return module


def machine(seed: int) -> tuple[dict[Domain, Vectors], dict[Domain, np.ndarray], Vectors]:
    """Draw 20 source and 6 target recordings of two windows, and windows of a fault."""
    rng = np.random.default_rng(seed)
    center, banks, recordings = rng.standard_normal(12), {}, {}
    for domain, count, shift in ((SOURCE, 20, 0.0), (TARGET, 6, 0.5)):
        own = center + shift + 0.3 * np.repeat(rng.standard_normal((count, 12)), 2, axis=0)
        banks[domain] = unit(own + 0.05 * rng.standard_normal(own.shape))
        recordings[domain] = np.repeat(np.arange(count), 2)
    return banks, recordings, unit(center + 2.0 * rng.standard_normal((8, 12)))


def unit(rows: np.ndarray) -> Vectors:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@NAMES
def test_faults_score_above_the_self_scores(candidates: ModuleType, name: str) -> None:
    banks, recordings, fault = machine(0)
    detector = Detector.fit(banks, recordings, backend=name)
    near = {domain: nearest_rows(fault, rows, max(detector.neighbors, 1)) for domain, rows in banks.items()}
    scores = np.min(list(detector.window_scores(fault, near).values()), axis=0)
    healthy = np.concatenate([own.scores for own in detector.self_scores.values()])
    assert np.mean(healthy[:, None] < scores) > 0.95


@NAMES
def test_a_left_out_measure_exceeds_that_of_an_enrolled_window(candidates: ModuleType, name: str) -> None:
    banks, recordings, _ = machine(1)
    backend, left_out, _ = candidates.CANDIDATE_BACKENDS[name].fit(banks, recordings)
    near = {domain: nearest_rows(banks[SOURCE], rows, max(backend.neighbors, 1)) for domain, rows in banks.items()}
    measures = backend.measure(banks[SOURCE], near)
    assert np.mean(measures[SOURCE] < left_out[SOURCE][SOURCE]) > 0.8


def test_the_density_difference_rises_with_distance(candidates: ModuleType) -> None:
    banks, recordings, fault = machine(2)
    backend = candidates.DensityDifference.fit(banks, recordings).backend
    near = nearest_rows(fault, banks[SOURCE], backend.neighbors)
    farther = Near(near.distances + np.float32(0.1), near.rows)
    assert (backend.measure(fault, {SOURCE: near})[SOURCE] < backend.measure(fault, {SOURCE: farther})[SOURCE]).all()


def test_the_residual_is_zero_within_the_principal_directions(candidates: ModuleType) -> None:
    """Windows in a plane are explained by two directions; only what is orthogonal to it is left."""
    rng = np.random.default_rng(3)
    plane = np.pad(unit(rng.standard_normal((15, 2))), ((0, 0), (0, 4)))
    backend = candidates.PcaResidual.fit({SOURCE: plane}, {SOURCE: np.arange(15)}).backend
    off = plane[:1] + np.array([[0, 0, 0.5, 0, 0, 0]], np.float32)
    near = {SOURCE: nearest_rows(plane, plane, 1)}
    assert backend.measure(plane, near)[SOURCE] == pytest.approx(0, abs=1e-3)
    assert backend.measure(off, near)[SOURCE] == pytest.approx(0.5, abs=1e-3)
