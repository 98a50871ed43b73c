"""Channels that cancel each other, and sound above the encoder's band."""

from collections.abc import Callable

import numpy as np
import pytest

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import Budget
from service.audio.decode import AudioLimits, Waveform, canceled_db, decode
from service.audio.plain_wav import read_plain_wav

LIMITS = AudioLimits(max_seconds=10.0)
RATE = 16_000
Encode = Callable[..., bytes]


def noise(seed: int = 0, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(RATE)


def by_decoder(data: bytes) -> Waveform:
    return decode(data, sample_rate=RATE, limits=LIMITS)


def by_reader(data: bytes) -> Waveform:
    found = read_plain_wav(data, RATE, LIMITS, Budget())
    assert found is not None  # the reader does not leave the file to the decoder
    return found


@pytest.fixture(params=[by_decoder, by_reader], ids=["decoder", "plain WAV"])
def read(request: pytest.FixtureRequest) -> Callable[[bytes], Waveform]:
    chosen: Callable[[bytes], Waveform] = request.param
    return chosen


def test_channels_that_are_exactly_inverted_are_refused_with_the_reason(encode: Encode) -> None:
    data = encode(np.stack([noise(), -noise()], axis=1), subtype="PCM_24")
    with pytest.raises(OffkeyError) as error:
        by_decoder(data)
    assert error.value.kind is ErrorKind.SILENT_AUDIO
    assert "cancel" in error.value.detail
    assert "polarity" in error.value.detail
    assert "microphone is on" not in error.value.detail


def test_inverted_channels_of_a_plain_file_are_left_to_the_decoder(encode: Encode) -> None:
    words = np.round(noise() * 32_768).astype(np.int16)
    data = encode(np.stack([words, -words], axis=1), subtype="PCM_16")
    assert read_plain_wav(data, RATE, LIMITS, Budget()) is None
    with pytest.raises(OffkeyError, match="opposite polarity"):
        by_decoder(data)


def test_silence_on_all_channels_is_a_matter_of_the_microphone(encode: Encode) -> None:
    for silent in (np.zeros((RATE, 2)), np.full((RATE, 2), 0.25), np.zeros(RATE)):
        with pytest.raises(OffkeyError) as error:
            by_decoder(encode(silent, subtype="FLOAT"))
        assert error.value.kind is ErrorKind.SILENT_AUDIO
        assert "microphone is on" in error.value.detail
        assert "polarity" not in error.value.detail


def test_channels_that_nearly_cancel_are_measured(encode: Encode, read: Callable[[bytes], Waveform]) -> None:
    data = encode(np.stack([noise(), -0.98 * noise()], axis=1), subtype="PCM_16")
    found = read(data).source_canceled_db
    assert found > 30
    assert found == pytest.approx(10 * np.log10((1 + 0.98**2) / 2 / 0.01**2), abs=0.2)


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_equal_channels_do_not_cancel(channels: int, encode: Encode, read: Callable[[bytes], Waveform]) -> None:
    data = encode(np.repeat(noise()[:, None], channels, axis=1), subtype="PCM_16")
    assert read(data).source_canceled_db == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("channels", "expected"), [(2, 3.0), (4, 6.0)])
def test_independent_channels_lose_three_db_a_doubling(
    channels: int, expected: float, encode: Encode, read: Callable[[bytes], Waveform]
) -> None:
    data = encode(np.stack([noise(seed) for seed in range(channels)], axis=1), subtype="PCM_16")
    assert read(data).source_canceled_db == pytest.approx(expected, abs=0.3)


def test_a_single_channel_has_nothing_to_cancel(encode: Encode, read: Callable[[bytes], Waveform]) -> None:
    assert read(encode(noise(), subtype="PCM_16")).source_canceled_db == 0.0


def test_offsets_of_channels_are_not_sound(encode: Encode, read: Callable[[bytes], Waveform]) -> None:
    data = encode(np.stack([noise() + 0.3, noise() - 0.3], axis=1), subtype="PCM_16")
    assert read(data).source_canceled_db == pytest.approx(0.0, abs=0.01)


def test_reader_and_decoder_measure_the_same(encode: Encode) -> None:
    for gain in (-0.999, -0.5, 0.0, 0.5):
        data = encode(np.stack([noise(1), gain * noise(1) + noise(2, 0.001)], axis=1), subtype="PCM_16")
        assert by_reader(data).source_canceled_db == pytest.approx(by_decoder(data).source_canceled_db, abs=0.01)


def test_cancellation_by_hand() -> None:
    assert canceled_db([1.0, 3.0], 0.02) == pytest.approx(20.0)
    assert canceled_db([], 1.0) == 0.0
    assert canceled_db([0.0, 0.0], 0.0) == 0.0  # silence, not a division by zero
    assert canceled_db([1.0, 1.0], 0.0) == pytest.approx(120.0)


def high_and_low(rate: int, high_share: float, high: float = 30_000.0) -> np.ndarray:
    """A tone of 1 kHz and a higher one that has this share of the power."""
    time = np.arange(2 * rate) / rate
    low = np.sqrt(1 - high_share) * np.sin(2 * np.pi * 1_000 * time)
    return 0.3 * (low + np.sqrt(high_share) * np.sin(2 * np.pi * high * time))


@pytest.mark.parametrize("share", [0.75, 0.3, 0.0])
def test_the_share_of_the_power_above_the_band_is_measured(share: float, encode: Encode) -> None:
    found = by_decoder(encode(high_and_low(96_000, share), 96_000, subtype="PCM_24"))
    assert found.source_out_of_band == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("rate", [RATE, 8_000])
def test_a_file_without_a_higher_band_has_nothing_out_of_band(rate: int, encode: Encode) -> None:
    tones = high_and_low(rate, 0.75, high=3_000.0)
    assert by_decoder(encode(tones, rate, subtype="PCM_16")).source_out_of_band == 0.0


def test_the_plain_reader_has_nothing_out_of_band(encode: Encode) -> None:
    assert by_reader(encode(noise(), subtype="PCM_16")).source_out_of_band == 0.0
