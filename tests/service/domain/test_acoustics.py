"""Acoustic measurements of signals with known properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from service.domain.acoustics import SILENCE_DBFS, Acoustics, band_edges, measure

RATE = 16_000


def acoustics(samples: NDArray[np.floating], rate: int = RATE) -> Acoustics:
    return measure(samples.astype(np.float32), rate, source_rate=48_000, channels=2, clipped=0.25)


def tone(hertz: float, seconds: float = 2.0, rate: int = RATE) -> NDArray[np.float64]:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def noise(seconds: float = 4.0, rate: int = RATE) -> NDArray[np.float64]:
    return 0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate))


@pytest.mark.parametrize("rate", [8_000, 16_000, 32_000, 44_100])
def test_a_sine_has_its_level_in_the_band_of_its_frequency(rate: int) -> None:
    found = acoustics(0.5 * tone(1_000.0, rate=rate), rate)
    level = 20 * np.log10(0.5) - 10 * np.log10(2)
    assert found.level_dbfs == pytest.approx(level, abs=0.01)
    assert found.noise_floor_dbfs == pytest.approx(level, abs=0.05)
    edges = band_edges(len(found.bands_dbfs))
    assert edges[-1] <= rate / 2
    loudest = int(np.argmax(found.bands_dbfs))
    assert edges[loudest] <= 1_000 <= edges[loudest + 1]
    assert found.bandwidth_hz == pytest.approx(1_000, abs=100)


def test_the_properties_of_the_file_are_returned() -> None:
    found = acoustics(noise())
    assert (found.sample_rate, found.channels, found.clipped) == (48_000, 2, 0.25)


def test_an_offset_does_not_count_as_level() -> None:
    assert acoustics(noise() + 0.5).level_dbfs == pytest.approx(acoustics(noise()).level_dbfs, abs=0.01)


@pytest.mark.parametrize("cut", [1_000.0, 2_000.0, 4_000.0])
def test_bandwidth_is_where_a_low_pass_cuts(cut: float) -> None:
    spectrum = np.fft.rfft(noise())
    spectrum[np.fft.rfftfreq(4 * RATE, 1 / RATE) > cut] = 0
    assert acoustics(np.fft.irfft(spectrum)).bandwidth_hz == pytest.approx(
        cut, abs=120
    )  # a frame's window is that wide 60 dB down
    assert acoustics(noise()).bandwidth_hz == RATE / 2


def test_the_noise_floor_is_that_of_the_pauses() -> None:
    """A knock of 0.1 s in each second, 40 dB over what is between."""
    knocks = np.where(np.arange(4 * RATE) % RATE < RATE / 10, 1.0, 0.01)
    found = acoustics(noise() * knocks)
    assert found.noise_floor_dbfs == pytest.approx(-60, abs=1)
    assert found.level_dbfs == pytest.approx(-30, abs=1)


@pytest.mark.parametrize("samples", [1, 100, 1_023, 1_024, 1_025])
def test_a_clip_of_any_length_is_measured(samples: int) -> None:
    found = acoustics(noise()[:samples])
    assert SILENCE_DBFS <= found.level_dbfs <= 0
    assert all(SILENCE_DBFS <= band <= 0 for band in found.bands_dbfs)


def test_a_long_clip_is_measured_from_end_to_end() -> None:
    """Half of it quiet: a measure of its beginning alone would not know."""
    half = np.where(np.arange(60 * RATE) < 30 * RATE, 1.0, 0.01)
    assert acoustics(noise(60.0) * half).noise_floor_dbfs == pytest.approx(-60, abs=1)


@settings(deadline=None)
@given(st.floats(-60.0, 0.0))
def test_a_gain_moves_levels_and_leaves_the_spectrum(gain_db: float) -> None:
    before, after = acoustics(noise()), acoustics(noise() * 10 ** (gain_db / 20))
    assert after.level_dbfs - before.level_dbfs == pytest.approx(gain_db, abs=0.01)
    assert after.noise_floor_dbfs - before.noise_floor_dbfs == pytest.approx(gain_db, abs=0.01)
    assert after.bandwidth_hz == before.bandwidth_hz
    np.testing.assert_allclose(after.spectrum, before.spectrum, atol=0.01)


@settings(deadline=None)
@given(arrays.arrays(np.float32, st.integers(1, 3_000), elements=st.floats(-100, 100, width=32)))
def test_measurements_of_any_samples_are_finite(samples: NDArray[np.float32]) -> None:
    found = acoustics(samples)  # raises if a value is not finite
    assert 0 < found.bandwidth_hz <= RATE / 2


@pytest.mark.parametrize(
    "damage",
    [{"level_dbfs": np.nan}, {"bands_dbfs": (np.inf,)}, {"bandwidth_hz": 0.0}, {"clipped": 1.5}, {"clipped": np.nan}],
)
def test_values_that_no_clip_can_have_are_refused(damage: dict[str, float]) -> None:
    whole = vars(acoustics(noise()))
    with pytest.raises(ValueError, match="acoustics hold"):
        Acoustics(**{**whole, **damage})
