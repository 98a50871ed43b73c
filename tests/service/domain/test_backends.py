"""One contract for all backends."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.domain import distance as distance_module
from service.domain.backends import BACKENDS, DEFAULT_BACKEND, check_backend
from service.domain.backends import covariance as covariance_module
from service.domain.backends import density as density_module
from service.domain.backends.base import LeftOut
from service.domain.backends.covariance import Mahalanobis, Products, fit_covariance, sample_windows
from service.domain.backends.density import DensityRatio
from service.domain.detector import Detector
from service.domain.distance import Near, cosine_distances, nearest_rows

SOURCE, TARGET = Domain.SOURCE, Domain.TARGET
NAMES = pytest.mark.parametrize("name", BACKENDS)
ByDomain = dict[Domain, np.ndarray]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def machine(seed: int, source: int, target: int = 0, windows: int = 1, dim: int = 12) -> tuple[ByDomain, ByDomain]:
    """Draw healthy windows about a center of the machine's own, shifted a little in the target, and recordings."""
    rng = np.random.default_rng(seed)
    center, shift, spread = rng.standard_normal(dim), 0.5 * rng.standard_normal(dim), rng.uniform(0.05, 0.5, dim)
    banks, recordings = {}, {}
    for domain, count, at in ((SOURCE, source, center), (TARGET, target, center + shift)):
        if count:
            own = at + spread * rng.standard_normal((count, dim))
            pieces = np.repeat(own, windows, axis=0) + 0.1 * spread * rng.standard_normal((count * windows, dim))
            banks[domain], recordings[domain] = unit(pieces), np.repeat(np.arange(count), windows)
    return banks, recordings


def scores(detector: Detector, banks: ByDomain, queries: np.ndarray) -> np.ndarray:
    near = {domain: nearest_rows(queries, rows, max(detector.neighbors, 1)) for domain, rows in banks.items()}
    found: np.ndarray = np.min(list(detector.window_scores(queries, near).values()), axis=0)
    return found


def measured(name: str, banks: ByDomain, recordings: ByDomain, queries: np.ndarray) -> tuple[ByDomain, LeftOut]:
    """Measure queries with a backend. Returns the measures before they are standardized, and the left-out ones."""
    backend, left_out, _ = BACKENDS[name].fit(banks, recordings)
    near = {d: nearest_rows(queries, rows, max(backend.neighbors, 1)) for d, rows in banks.items()}
    return dict(backend.measure(queries, near)), left_out


def finite(detector: Detector, banks: ByDomain) -> None:
    """Check that all scores are finite: of windows in the bank, near it, opposite to it and anywhere."""
    everything = np.concatenate(list(banks.values()))
    anywhere = unit(np.random.default_rng(0).standard_normal((20, everything.shape[1])))
    for queries in (everything, unit(everything + 1e-6), -everything, anywhere):
        assert np.isfinite(scores(detector, banks, queries)).all()
    assert all(np.isfinite(own.scores).all() for own in detector.self_scores.values())
    assert all(np.isfinite([scale.mu, scale.sigma]).all() for (scale,) in detector.whole.scales.values())


@NAMES
@pytest.mark.parametrize(("source", "target"), [(2, 0), (2, 1), (1, 2), (3, 3), (30, 0), (30, 10), (4, 30), (45, 2)])
@pytest.mark.parametrize("windows", [1, 3])
def test_banks_of_any_size_give_numbers(name: str, source: int, target: int, windows: int) -> None:
    banks, recordings = machine(source + 7 * target, source, target, windows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finite(Detector.fit(banks, recordings, backend=name), banks)


@NAMES
@pytest.mark.parametrize(
    "rows",
    [
        np.repeat(np.eye(6)[:1], 8, axis=0),  # identical clips, a constant embedding
        np.repeat(np.eye(6)[:2], [7, 1], axis=0),  # identical but for one
        np.repeat(np.eye(6)[:3], 4, axis=0),  # each clip four times
        np.pad(unit(np.random.default_rng(1).standard_normal((9, 2))), ((0, 0), (0, 4))),  # in a plane
        unit(1 + 1e-5 * np.random.default_rng(2).standard_normal((8, 6))),  # all but identical
        np.concatenate([np.eye(6)[:1], -np.eye(6)[:1]]),  # two opposites
    ],
    ids=["identical", "one differs", "repeated", "plane", "nearly identical", "opposites"],
)
@pytest.mark.parametrize("target", [0, 1, 3])
def test_degenerate_banks_give_numbers(name: str, rows: np.ndarray, target: int) -> None:
    banks = {SOURCE: rows.astype(np.float32)} | ({TARGET: rows[-target:].astype(np.float32)} if target else {})
    recordings = {domain: np.arange(len(own)) for domain, own in banks.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finite(Detector.fit(banks, recordings, backend=name), banks)


@NAMES
@pytest.mark.parametrize("domains", [[SOURCE], [TARGET], [SOURCE, TARGET]])
def test_one_recording_per_domain_is_too_few(name: str, domains: list[Domain]) -> None:
    banks, _ = machine(3, 3, 3)
    with pytest.raises(OffkeyError) as refused:
        Detector.fit({d: banks[d] for d in domains}, {d: np.zeros(3, dtype=np.int64) for d in domains}, backend=name)
    assert refused.value.kind is ErrorKind.BANK_TOO_SMALL


@NAMES
@given(seed=st.integers(0, 2**32 - 1), sizes=st.tuples(st.integers(2, 30), st.integers(0, 12)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_enrollment_does_not_matter(name: str, seed: int, sizes: tuple[int, int]) -> None:
    banks, recordings = machine(seed, *sizes, windows=2)
    queries = np.concatenate([machine(seed + 1, 4)[0][SOURCE], banks[SOURCE][:3]])
    rng = np.random.default_rng(seed)
    orders = {domain: rng.permutation(len(rows)) for domain, rows in banks.items()}
    straight = Detector.fit(banks, recordings, backend=name)
    shuffled = {d: banks[d][orders[d]] for d in reversed(banks)}
    other = Detector.fit(shuffled, {d: recordings[d][orders[d]] for d in shuffled}, backend=name)
    assert scores(other, shuffled, queries) == pytest.approx(scores(straight, banks, queries), rel=1e-3, abs=1e-3)
    for domain, own in straight.self_scores.items():
        assert other.self_scores[domain].scores == pytest.approx(own.scores, rel=1e-3, abs=1e-3)


@NAMES
def test_more_windows_than_directions_are_fitted_to(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order does not matter there either, nor do the limits of blocks and folds."""
    banks, recordings = machine(4, 40, 12, windows=2)
    queries = machine(5, 6)[0][SOURCE]
    monkeypatch.setattr(covariance_module, "MAX_WINDOWS", 50)
    whole = Detector.fit(banks, recordings, backend=name)
    for module in (density_module, distance_module):
        monkeypatch.setattr(module, "_BLOCK_ROWS", 7)
    order = np.random.default_rng(0).permutation(len(banks[SOURCE]))
    shuffled = {SOURCE: banks[SOURCE][order], TARGET: banks[TARGET]}
    other = Detector.fit(shuffled, {SOURCE: recordings[SOURCE][order], TARGET: recordings[TARGET]}, backend=name)
    assert scores(other, shuffled, queries) == pytest.approx(scores(whole, banks, queries), rel=1e-3, abs=1e-3)
    assert other.self_scores[SOURCE].scores == pytest.approx(whole.self_scores[SOURCE].scores, rel=1e-3, abs=1e-3)


@NAMES
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_a_score_is_independent_of_other_windows(name: str, seed: int) -> None:
    banks, recordings = machine(seed, 12, 4)
    detector = Detector.fit(banks, recordings, backend=name)
    queries = unit(np.random.default_rng(seed).standard_normal((6, 12)))
    together = scores(detector, banks, queries)
    alone = np.concatenate([scores(detector, banks, queries[row : row + 1]) for row in range(6)])
    assert alone == pytest.approx(together, rel=1e-4, abs=1e-4)


@NAMES
@given(seed=st.integers(0, 2**32 - 1), target=st.sampled_from([0, 1, 6]))
@settings(max_examples=10, deadline=None)
def test_an_enrolled_window_is_nearer_than_it_was_left_out(name: str, seed: int, target: int) -> None:
    banks, recordings = machine(seed, 20, target)
    enrolled = scores(Detector.fit(banks, recordings, backend=name), banks, banks[SOURCE])
    across = scores(Detector.fit(banks, recordings, backend=name), banks, -banks[SOURCE])
    assert enrolled.max() < across.min()
    found, left_out = measured(name, banks, recordings, banks[SOURCE])
    assert (found[SOURCE] <= left_out[SOURCE][SOURCE] + 1e-4).mean() > 0.8


@pytest.mark.parametrize("name", ["nearest", "density-ratio"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_no_window_scores_below_an_enrolled_one(name: str, seed: int) -> None:
    banks, recordings = machine(seed, 12)
    detector = Detector.fit(banks, recordings, backend=name)
    lowest = scores(detector, banks, banks[SOURCE]).max()
    near = unit(banks[SOURCE] + 0.02 * np.random.default_rng(seed).standard_normal(banks[SOURCE].shape))
    assert lowest <= scores(detector, banks, near).min() + 1e-3


@pytest.mark.parametrize("name", ["nearest", "nearest-mean"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_one_more_clip_never_raises_the_distance(name: str, seed: int) -> None:
    banks, recordings = machine(seed, 12)
    queries = unit(np.random.default_rng(seed).standard_normal((5, 12)))
    more = {SOURCE: np.concatenate([banks[SOURCE], unit(np.random.default_rng(seed + 1).standard_normal((1, 12)))])}
    before, _ = measured(name, banks, recordings, queries)
    after, _ = measured(name, more, {SOURCE: np.arange(13)}, queries)
    assert (after[SOURCE] <= before[SOURCE] + 1e-6).all()


@pytest.mark.parametrize("name", ["nearest", "nearest-mean", "density-ratio"])
@given(seed=st.integers(0, 2**32 - 1), factors=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(max_examples=20, deadline=None)
def test_a_score_rises_with_distance(name: str, seed: int, factors: tuple[float, float]) -> None:
    banks, recordings = machine(seed, 12)
    detector = Detector.fit(banks, recordings, backend=name)
    query = banks[SOURCE][:1]
    near = nearest_rows(query, banks[SOURCE], detector.neighbors)
    few, many = sorted(factors)
    closer, farther = (
        detector.window_scores(query, {SOURCE: Near((factor + near.distances).astype(np.float32), near.rows)})[SOURCE]
        for factor in (few, many)
    )
    assert closer <= farther


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_mahalanobis_rises_along_any_line_from_the_mean(seed: int) -> None:
    banks, recordings = machine(seed, 20)
    one = Mahalanobis.fit(banks, recordings).backend
    mean, direction = banks[SOURCE].mean(axis=0), np.random.default_rng(seed).standard_normal(12)
    line = (mean + np.linspace(0, 3, 9)[:, None] * direction).astype(np.float32)
    found = one.measure(line, {SOURCE: nearest_rows(line, banks[SOURCE], 1)})[SOURCE]
    assert (np.diff(found) > 0).all()


@NAMES
def test_a_fault_stands_out_and_ten_target_clips_suffice(name: str) -> None:
    banks, recordings = machine(6, 60, 10)
    more, _ = machine(6, 60, 60)  # the same machine; its other target clips are new
    fault = unit(more[SOURCE] + 0.5 * np.random.default_rng(7).standard_normal(12))
    detector = Detector.fit(banks, recordings, backend=name)
    healthy = scores(detector, banks, more[TARGET][10:])
    assert np.mean(healthy[:, None] < scores(detector, banks, fault)) > 0.9


def test_the_left_out_density_is_that_of_a_bank_without_the_recording() -> None:
    """The slow reference removes the recording, fits again and measures its windows."""
    banks, recordings = machine(10, 14, 11, windows=2)
    left_out = DensityRatio.fit(banks, recordings).left_out
    for domain in banks:
        for number in range(11):
            held = recordings[domain] == number
            rest = {d: rows[~held] if d is domain else rows for d, rows in banks.items()}
            others = {d: own[~held] if d is domain else own for d, own in recordings.items()}
            found, _ = measured("density-ratio", rest, others, banks[domain][held])
            for bank in banks:
                assert left_out[domain][bank][held] == pytest.approx(found[bank], rel=1e-4)


@NAMES
def test_a_recording_far_from_all_others_has_by_far_the_highest_self_score(name: str) -> None:
    """Its own windows, which are close to each other, are left out."""
    banks, recordings = machine(11, 15, windows=3)
    banks[SOURCE][-3:] = unit(-banks[SOURCE][:1] + 1e-3 * np.random.default_rng(0).standard_normal((3, 12)))
    detector = Detector.fit(banks, recordings, backend=name)
    own = detector.self_scores[SOURCE].scores
    assert np.argmax(own) == 14
    assert own[14] > 2 * np.sort(own)[-2]


def test_ledoit_wolf_as_scikit_learn_has_it() -> None:
    sklearn_covariance = pytest.importorskip("sklearn.covariance")
    for count, dim in ((15, 40), (60, 12), (200, 5)):
        rows = np.random.default_rng(count).standard_normal((count, dim)) * np.linspace(0.1, 1, dim)
        expected = sklearn_covariance.ledoit_wolf_shrinkage(rows)
        windows = sample_windows({SOURCE: rows.astype(np.float32)})
        fitted = fit_covariance(windows, Products.of(windows, {SOURCE: np.arange(count)}))
        assert fitted.shrinkage == pytest.approx(expected, rel=1e-3)


def test_mahalanobis_is_that_of_the_shrunk_covariance() -> None:
    banks, recordings = machine(12, 30, 9)
    queries = machine(13, 5)[0][SOURCE]
    one = Mahalanobis.fit(banks, recordings).backend
    assert isinstance(one, Mahalanobis)
    centered = np.concatenate([rows - rows.mean(axis=0) for rows in banks.values()]).astype(np.float64)
    shrunk = one._kept * (centered.T @ centered / len(centered)) + one._ridge * np.eye(12)
    found = one.measure(queries, {d: nearest_rows(queries, rows, 1) for d, rows in banks.items()})
    for domain, rows in banks.items():
        away = queries - rows.mean(axis=0)
        expected = np.sqrt(np.einsum("md,de,me->m", away, np.linalg.inv(shrunk), away) / 12)
        assert found[domain] == pytest.approx(expected, rel=1e-3)


def test_nearest_rows_are_those_of_a_full_sort() -> None:
    rng = np.random.default_rng(14)
    queries, references = unit(rng.standard_normal((9, 6))), unit(rng.standard_normal((25, 6)))
    whole = cosine_distances(queries, references)
    found = nearest_rows(queries, references, 4)
    assert np.array_equal(found.rows, np.argsort(whole, axis=1)[:, :4])
    groups = np.arange(9), np.arange(25) % 9
    apart = nearest_rows(queries, references, 30, apart=groups)
    assert apart.rows.shape == (9, 25)
    assert np.array_equal(np.isinf(apart.distances).sum(axis=1), [np.sum(groups[1] == own) for own in groups[0]])


def test_an_unknown_backend_is_refused_with_the_closest_name() -> None:
    assert check_backend(DEFAULT_BACKEND) == DEFAULT_BACKEND
    with pytest.raises(ValueError, match=r"no backend 'mahalonobis'\. Did you mean mahalanobis\? Choose one of: "):
        check_backend("mahalonobis")


@pytest.mark.parametrize("name", ["fusion", "pca-residual", "density-difference"])
def test_a_backend_that_is_no_longer_served_is_refused_with_the_ones_that_are(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^There is no backend '{name}'\..* Choose one of: nearest, nearest-mean, "):
        check_backend(name)


@NAMES
def test_nbytes_counts_every_fitted_array(name: str) -> None:
    banks, recordings = machine(15, 12, 5)

    def arrays(part: object) -> list[np.ndarray]:
        if isinstance(part, np.ndarray):
            return [part]
        if isinstance(part, dict):
            return [array for value in part.values() for array in arrays(value)]
        fields = getattr(part, "__dict__", None) or (part._asdict() if hasattr(part, "_asdict") else {})
        return arrays(dict(fields))

    detector = Detector.fit(banks, recordings, backend=name)
    assert detector.nbytes == sum(array.nbytes for array in arrays(detector._fitted))
