"""Fixtures of the reliability tests."""

from collections.abc import Callable

import numpy as np
import pytest

# Container, subtype, sample rate: one of every kind that is accepted.
KINDS = [
    ("WAV", "PCM_16", 16_000), ("WAV", "FLOAT", 16_000), ("WAV", "IMA_ADPCM", 16_000), ("WAVEX", "PCM_24", 48_000),
    ("RF64", "PCM_16", 16_000), ("W64", "PCM_16", 16_000), ("FLAC", "PCM_16", 16_000), ("OGG", "VORBIS", 44_100),
    ("OGG", "OPUS", 48_000), ("MP3", "MPEG_LAYER_III", 32_000), ("AIFF", "PCM_16", 16_000), ("CAF", "PCM_16", 16_000),
]  # fmt: skip


@pytest.fixture(scope="session")
def valid(encode: Callable[..., bytes]) -> dict[str, bytes]:
    """A valid clip of 1.2 s in every format that is accepted, by a name for it."""
    rng = np.random.default_rng(0)
    return {
        f"{container}-{subtype}": encode(
            rng.uniform(-0.5, 0.5, (rate * 6 // 5, 2)).astype(np.float32), rate, container=container, subtype=subtype
        )
        for container, subtype, rate in KINDS
    }
