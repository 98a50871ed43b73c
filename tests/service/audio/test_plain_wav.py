"""Plain WAV files: read as libsndfile reads them, and every other file is left to it."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import Budget
from service.audio.decode import AudioLimits, decode
from service.audio.plain_wav import read_plain_wav

RATE = 16_000
LIMITS = AudioLimits(max_seconds=2.0)
Encode = Callable[..., bytes]


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def wav(words: np.ndarray, *, rate: int = RATE, before: bytes = b"", after: bytes = b"") -> bytes:
    """Encode 16-bit words `(frames, channels)`."""
    channels = words.shape[1]
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    body = b"WAVE" + before + chunk(b"fmt ", head) + chunk(b"data", words.astype("<i2").tobytes()) + after
    return chunk(b"RIFF", body)


def noise(frames: int, channels: int = 1, seed: int = 0, level: int = 3_000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-level, level, (frames, channels))


@settings(max_examples=100, deadline=None)
@given(
    frames=st.integers(1, 3_000),
    channels=st.integers(1, 16),
    seed=st.integers(0, 2**32 - 1),
    level=st.sampled_from([2, 100, 32_500, 32_768]),
    offset=st.sampled_from([0, 20_000, -32_000]),
    before=st.sampled_from([b"", chunk(b"LIST", b"INFOabc"), chunk(b"junk", bytes(40))]),
    after=st.sampled_from([b"", chunk(b"LIST", b"x")]),
)
def test_samples_equal_those_of_libsndfile(
    frames: int, channels: int, seed: int, level: int, offset: int, before: bytes, after: bytes
) -> None:
    words = np.clip(noise(frames, channels, seed, level) + offset, -32_768, 32_767)
    data = wav(words, before=before, after=after)
    ours, theirs = Budget(1e6), Budget(1e6)
    here = read_plain_wav(data, RATE, LIMITS, ours)
    if here is None:  # nearly silent
        assert ours.left == 1e6
        assert words.mean(axis=1).std() < 3
        return
    there = decode(data, sample_rate=RATE, limits=LIMITS, budget=theirs)
    np.testing.assert_array_equal(here.samples, there.samples)
    assert here.samples.dtype == there.samples.dtype
    assert (here.sample_rate, here.source_sample_rate, here.source_channels, here.source_clipped) == (
        there.sample_rate,
        there.source_sample_rate,
        there.source_channels,
        there.source_clipped,
    )
    assert ours.left == theirs.left


@settings(max_examples=500, deadline=None)
@given(at=st.integers(0, 63), value=st.integers(0, 255), cut=st.integers(0, 80))
def test_a_file_with_a_changed_header_is_read_as_libsndfile_does_or_left_to_it(at: int, value: int, cut: int) -> None:
    data = bytearray(wav(noise(500), before=chunk(b"LIST", b"INFO")))
    data[at] = value
    whole = bytes(data[: len(data) - cut])
    here = read_plain_wav(whole, RATE, LIMITS, Budget())
    if here is not None:
        there = decode(whole, sample_rate=RATE, limits=LIMITS)
        np.testing.assert_array_equal(here.samples, there.samples)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"RIFF\xff\xff\xff\xffWAVEfmt ",
        wav(noise(500), rate=48_000),
        wav(noise(0)),
        wav(noise(500, level=1)),
        wav(noise(500, 17)),
        wav(noise(3 * RATE)),
        wav(noise(500))[:-1],
        wav(noise(500)).replace(b"data\xe8\x03\x00\x00", b"data\x00\x00\x00\x00"),
        wav(noise(500)).replace(b"data\xe8\x03\x00\x00", b"data\xff\xff\xff\xff"),
        wav(noise(500)).replace(b"data\xe8\x03\x00\x00", b"data\xe7\x03\x00\x00"),
        wav(noise(500)).replace(struct.pack("<HH", 2, 16), struct.pack("<HH", 0, 16)),
        wav(noise(500), before=chunk(b"fmt ", bytes(16))),
        wav(noise(500), before=40 * chunk(b"junk", b"")),
    ],
)
def test_unusual_files_are_left_to_libsndfile(data: bytes) -> None:
    budget = Budget(100_000)
    assert read_plain_wav(data, RATE, LIMITS, budget) is None
    assert budget.left == 100_000


def test_other_formats_are_left_to_libsndfile(encode: Encode) -> None:
    samples = noise(500)[:, 0] / 32_768
    for container, subtype in (("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAVEX", "PCM_16"), ("FLAC", "PCM_16")):
        assert (
            read_plain_wav(encode(samples, RATE, container=container, subtype=subtype), RATE, LIMITS, Budget()) is None
        )


def test_the_budget_of_the_request_limits_the_samples() -> None:
    with pytest.raises(OffkeyError) as error:
        read_plain_wav(wav(noise(500, 2)), RATE, LIMITS, Budget(999))
    assert error.value.kind is ErrorKind.TOO_MUCH_AUDIO


def test_large_files_are_left_to_a_child_process() -> None:
    limits = AudioLimits()
    assert read_plain_wav(wav(noise(2**21)), RATE, limits, Budget()) is not None
    assert read_plain_wav(wav(noise(2**21 + 1)), RATE, limits, Budget()) is None
