"""Decoding: every format and rate, and wrong headers."""

import io
import struct
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import Budget
from service.audio.decode import AudioLimits, cut, decode
from service.audio.wav_headers import DeclaredAudio, read_headers

LIMITS = AudioLimits(max_seconds=60.0)
RATE = 16_000

Encode = Callable[..., bytes]


def tone(frequency: float, sample_rate: int, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    mono = 0.3 * np.sin(2 * np.pi * frequency * time)
    return np.repeat(mono[:, None], channels, axis=1)


def peak_hz(samples: np.ndarray, sample_rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * sample_rate / len(samples))


def refused(data: bytes, limits: AudioLimits = LIMITS) -> OffkeyError:
    with pytest.raises(OffkeyError) as error:
        decode(data, sample_rate=RATE, limits=limits)
    return error.value


@pytest.mark.parametrize(
    ("container", "subtype", "sample_rate"),
    [
        ("WAV", "PCM_16", 16_000),
        ("WAV", "PCM_24", 48_000),
        ("WAV", "PCM_U8", 8_000),
        ("WAV", "FLOAT", 96_000),
        ("WAV", "DOUBLE", 44_100),
        ("WAV", "ULAW", 8_000),
        ("WAVEX", "PCM_16", 22_050),
        ("FLAC", "PCM_24", 192_000),
        ("OGG", "VORBIS", 44_100),
        ("OGG", "OPUS", 48_000),
        ("MP3", "MPEG_LAYER_III", 32_000),
        ("AIFF", "PCM_16", 11_025),
        ("CAF", "PCM_16", 16_000),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_gives_the_same_tone(
    encode: Encode, container: str, subtype: str, sample_rate: int, channels: int
) -> None:
    data = encode(tone(1_000, sample_rate, channels=channels), sample_rate, container=container, subtype=subtype)
    waveform = decode(data, sample_rate=RATE, limits=LIMITS)
    assert waveform.sample_rate == RATE
    assert waveform.source_sample_rate == sample_rate
    assert waveform.source_channels == channels
    assert waveform.samples.dtype == np.float32
    assert waveform.seconds == pytest.approx(1.0, abs=0.08)  # MP3 and Opus pad to whole frames
    assert peak_hz(waveform.samples, RATE) == pytest.approx(1_000, abs=3)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "FLOAT"])
def test_the_share_of_clipped_samples_is_that_of_the_file(encode: Encode, subtype: str) -> None:
    """Also if averaging channels hides it: one of two channels is at full scale, up and down, for a quarter."""
    samples = np.zeros((100_000, 2), dtype=np.float32)
    samples[:, 1] = 0.5
    samples[:25_000, 0] = np.where(np.arange(25_000) % 2, 1.0, -1.0)
    assert decode(encode(samples, 48_000, subtype=subtype), sample_rate=RATE, limits=LIMITS).source_clipped == 0.125


def test_channels_are_averaged(encode: Encode) -> None:
    both = np.concatenate([tone(500, RATE), tone(3_000, RATE)], axis=1)
    mono = decode(encode(both, subtype="FLOAT"), sample_rate=RATE, limits=LIMITS).samples
    np.testing.assert_allclose(mono, both.mean(axis=1), atol=1e-6)


def test_a_clip_at_the_model_rate_is_not_touched(encode: Encode) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 5_000).astype(np.float32)
    decoded = decode(encode(samples, subtype="FLOAT"), sample_rate=RATE, limits=LIMITS)
    np.testing.assert_array_equal(decoded.samples, samples)


def test_a_tone_above_the_new_nyquist_vanishes(encode: Encode) -> None:
    high = tone(15_000, 48_000) + tone(1_000, 48_000)
    samples = decode(encode(high, 48_000), sample_rate=RATE, limits=LIMITS).samples
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    alias = spectrum[990:1_010].max()  # 15 kHz would fold down onto 1 kHz
    assert alias == pytest.approx(spectrum.max())
    only_high = decode(encode(tone(15_000, 48_000) + 1e-3 * tone(50, 48_000), 48_000), sample_rate=RATE, limits=LIMITS)
    assert np.abs(only_high.samples[1_000:-1_000]).max() < 1e-3


@pytest.mark.parametrize("rate", [0, 1, 1_999, 384_001, 4_000_000_000])
def test_a_header_with_an_absurd_rate_is_refused(encode: Encode, rate: int) -> None:
    data = bytearray(encode(tone(100, RATE), subtype="PCM_16"))
    data[24:28] = struct.pack("<I", rate)
    data[28:32] = struct.pack("<I", (rate * 2) % 2**32)
    error = refused(bytes(data))
    assert error.kind is ErrorKind.UNSUPPORTED_SAMPLE_RATE
    assert error.values["sample_rate"] == rate


@pytest.mark.parametrize("data", [b"hello, I am a text file\n" * 100, b"RIFF", b"\x00" * 1_000, b"fLaC", b"OggS" * 50])
def test_bytes_that_are_no_audio_are_refused(data: bytes) -> None:
    assert refused(data).kind is ErrorKind.UNDECODABLE_AUDIO


def test_no_bytes_and_no_frames_are_refused(encode: Encode) -> None:
    assert refused(b"").kind is ErrorKind.EMPTY_AUDIO
    assert refused(encode(np.zeros((0, 1)))).kind is ErrorKind.EMPTY_AUDIO


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_flac_is_refused(encode: Encode, keep: float) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * RATE)
    data = encode(noise, container="FLAC", subtype="PCM_16")
    assert refused(data[: int(len(data) * keep)]).kind is ErrorKind.TRUNCATED_AUDIO


def test_a_damaged_flac_is_not_called_truncated(encode: Encode) -> None:
    data = bytearray(encode(np.random.default_rng(0).uniform(-0.5, 0.5, 5 * RATE), container="FLAC", subtype="PCM_16"))
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    assert refused(bytes(data)).kind is ErrorKind.UNDECODABLE_AUDIO


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF"])
@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_a_truncated_file_that_declares_its_size_is_refused(encode: Encode, container: str, keep: float) -> None:
    """Libsndfile would decode it as a shorter clip."""
    data = encode(tone(100, RATE), container=container, subtype="PCM_16")
    cut_off = len(data) - int(len(data) * keep)
    error = refused(data[:-cut_off])
    assert error.kind is ErrorKind.TRUNCATED_AUDIO
    assert error.values["missing_bytes"] >= cut_off - 8_192  # CAF ends with a chunk of padding


def test_a_truncated_big_endian_wav_is_refused(encode: Encode) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(100, RATE), RATE, format="WAV", subtype="PCM_16", endian="BIG")
    assert file.getvalue()[:4] == b"RIFX"
    assert len(decode(file.getvalue(), sample_rate=RATE, limits=LIMITS).samples) == RATE
    assert refused(file.getvalue()[:-2]).kind is ErrorKind.TRUNCATED_AUDIO


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000, 0x8000_0000])
def test_a_wav_from_a_pipe_is_read_whole(encode: Encode, size: int) -> None:
    """A program that writes to a pipe cannot fill in the size afterwards. ffmpeg, SoX and arecord leave these sizes."""
    data = bytearray(encode(tone(100, RATE), subtype="PCM_16"))
    assert data[36:40] == b"data"
    data[4:8] = struct.pack("<I", size or 8)
    data[40:44] = struct.pack("<I", size)
    assert len(decode(bytes(data), sample_rate=RATE, limits=LIMITS).samples) == RATE


def test_chunks_around_the_audio_do_not_matter(encode: Encode) -> None:
    data = encode(tone(100, RATE), subtype="PCM_16")
    odd = b"LIST" + struct.pack("<I", 5) + b"notes\0"
    around = data[:36] + odd + data[36:] + odd
    assert len(decode(around, sample_rate=RATE, limits=LIMITS).samples) == RATE
    assert refused(around[: -len(odd) - 2]).kind is ErrorKind.TRUNCATED_AUDIO


@given(st.binary(max_size=200), st.sampled_from([b"RIFF", b"RIFX", b"RF64", b"FORM", b"caff", b"riff"]))
def test_any_chunk_headers_are_read_without_an_error(data: bytes, magic: bytes) -> None:
    assert read_headers(magic + data).missing_bytes >= 0


def test_the_number_of_chunks_that_are_read_is_limited() -> None:
    start = time.monotonic()
    assert read_headers(b"RIFF" + bytes(20 * 2**20)) == DeclaredAudio()
    assert time.monotonic() - start < 0.5


def test_a_flac_of_unknown_length_is_read_whole(encode: Encode) -> None:
    """Recorders that stream (VLC) leave the number of samples in STREAMINFO at 0."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE)
    data = bytearray(encode(noise, container="FLAC", subtype="PCM_16"))
    data[21] &= 0xF0  # the upper 4 of 36 bits
    data[22:26] = bytes(4)
    assert len(decode(bytes(data), sample_rate=RATE, limits=LIMITS).samples) == 3 * RATE


def test_a_flac_that_claims_2_to_the_36_samples_is_refused(encode: Encode) -> None:
    data = bytearray(encode(tone(100, RATE), container="FLAC", subtype="PCM_16"))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    assert refused(bytes(data)).kind is ErrorKind.TRUNCATED_AUDIO


def test_length_is_counted_on_decoded_frames(encode: Encode) -> None:
    """Ten minutes of silence and one click compress to a few kilobytes."""
    samples = np.zeros(600 * RATE, dtype=np.float32)
    samples[0] = 0.5
    data = encode(samples, container="FLAC", subtype="PCM_16")
    assert len(data) < 200_000
    error = refused(data)
    assert error.kind is ErrorKind.CLIP_TOO_LONG
    assert error.values["max_seconds"] == 60.0


def test_a_request_has_a_budget_of_frames_times_channels(encode: Encode) -> None:
    """Eight channels of near silence compress well, but every sample counts."""
    dense = np.zeros((96_000, 8), dtype=np.float32)
    dense[0] = 0.1
    data = encode(dense, 96_000, container="FLAC", subtype="PCM_16")
    assert len(data) < 100_000
    budget = Budget(2 * dense.size)
    for _ in range(2):
        decode(data, sample_rate=RATE, limits=LIMITS, budget=budget)
    with pytest.raises(OffkeyError) as error:
        decode(data, sample_rate=RATE, limits=LIMITS, budget=budget)
    assert error.value.kind is ErrorKind.TOO_MUCH_AUDIO
    assert error.value.values["max_decoded_samples"] == 2 * dense.size


def test_below_the_rate_of_the_model_the_resampled_audio_counts(encode: Encode) -> None:
    data = encode(tone(100, 2_000), 2_000)  # 2,000 frames, embedded as 16,000
    decode(data, sample_rate=RATE, limits=LIMITS, budget=Budget(RATE))
    with pytest.raises(OffkeyError):
        decode(data, sample_rate=RATE, limits=LIMITS, budget=Budget(RATE - 1))


def test_decoding_ends_when_the_service_stops(encode: Encode) -> None:
    stopping = threading.Event()
    budget = Budget(stopping=stopping)
    data = encode(tone(100, RATE))
    decode(data, sample_rate=RATE, limits=LIMITS, budget=budget)
    stopping.set()
    with pytest.raises(OffkeyError) as error:
        decode(data, sample_rate=RATE, limits=LIMITS, budget=budget)
    assert error.value.kind is ErrorKind.STOPPING


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_refused(encode: Encode, bad: float) -> None:
    samples = tone(100, RATE)[:, 0]
    samples[1_234] = bad
    assert refused(encode(samples, subtype="FLOAT")).kind is ErrorKind.NON_FINITE_AUDIO


def test_integers_in_a_float_file_are_refused(encode: Encode) -> None:
    error = refused(encode(32_768 * tone(100, RATE), subtype="FLOAT"))
    assert error.kind is ErrorKind.OUT_OF_RANGE_AUDIO
    assert "divided" in error.detail


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_finite_samples_whose_sum_is_not_are_refused(encode: Encode, value: float) -> None:
    samples = tone(100, RATE, channels=2).astype(np.float32)
    samples[5] = value
    assert refused(encode(samples, subtype="FLOAT")).kind is ErrorKind.NON_FINITE_AUDIO


def test_samples_too_large_for_float32_are_refused(encode: Encode) -> None:
    samples = tone(100, RATE)[:, 0]
    samples[10] = 1e300
    assert refused(encode(samples, subtype="DOUBLE")).kind is ErrorKind.NON_FINITE_AUDIO


@pytest.mark.parametrize("level", [0.0, 0.25, -1.0])
def test_silence_is_refused_with_or_without_an_offset(encode: Encode, level: float) -> None:
    assert refused(encode(np.full(RATE, level), subtype="FLOAT")).kind is ErrorKind.SILENT_AUDIO


def test_a_quiet_clip_is_not_silence(encode: Encode) -> None:
    quiet = 1e-3 * tone(100, RATE)  # about -73 dBFS
    assert len(decode(encode(quiet, subtype="PCM_24"), sample_rate=RATE, limits=LIMITS).samples) == RATE


def test_too_many_channels_are_refused(encode: Encode) -> None:
    assert refused(encode(tone(100, RATE, channels=17))).kind is ErrorKind.TOO_MANY_CHANNELS


@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 60))
def test_windows_cover_the_clip_and_the_last_ends_with_it(length: int, window: int, hop: int) -> None:
    hop = min(hop, window)
    samples = np.arange(length, dtype=np.float32)
    windows = cut(samples, window=window, hop=hop)
    covered = np.unique(np.concatenate([part for _, part in windows]))
    np.testing.assert_array_equal(covered, samples)
    assert all(part[0] == start for start, part in windows)
    assert windows[-1][1][-1] == length - 1
    assert all(len(part) == min(window, length) for _, part in windows)
    starts = [start for start, _ in windows]
    assert starts == sorted(set(starts))
