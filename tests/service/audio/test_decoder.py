"""The entry point for decoding: plain WAV files here, every other file in a child process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import Budget
from service.audio.decode import AudioLimits, decode
from service.audio.decoder import Decoder
from service.audio.processes import DecoderPool
from service.audio.processes.messages import DecodeLimits

RATE = 16_000
LIMITS = AudioLimits(max_seconds=2.0)
Encode = Callable[..., bytes]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    pool = DecoderPool(DecodeLimits(LIMITS, 2**20, 10), wall_seconds=30.0)
    yield Decoder(pool)
    pool.close()


def clip(encode: Encode, rate: int = RATE, **options: str) -> bytes:
    return encode(np.random.default_rng(0).uniform(-0.5, 0.5, rate).astype(np.float32), rate, **options)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux's /proc")
@pytest.mark.parametrize(
    ("rate", "options", "processes"),
    [(RATE, {"subtype": "PCM_16"}, 0), (8_000, {"subtype": "PCM_16"}, 1), (RATE, {"container": "FLAC"}, 1)],
    ids=["plain", "another-rate", "another-format"],
)
def test_only_a_file_that_is_no_plain_wav_takes_a_child_process(
    encode: Encode, rate: int, options: dict[str, str], processes: int
) -> None:
    pool = DecoderPool(DecodeLimits(LIMITS, 2**20, 10), wall_seconds=30.0)
    try:
        data, budget = clip(encode, rate, **options), Budget(1e6)
        found, expected = Decoder(pool).decode(data, RATE, budget), decode(data, sample_rate=RATE, limits=LIMITS)
        fork_server = pool._process.pid
        children = Path(f"/proc/{fork_server}/task/{fork_server}/children").read_text().split()
    finally:
        pool.close()
    np.testing.assert_array_equal(found.samples, expected.samples)
    assert (found.source_sample_rate, found.source_channels) == (rate, 1)
    assert budget.left == 1e6 - RATE
    assert len(children) == processes


@pytest.mark.parametrize("rate", [RATE, 8_000])
def test_the_limits_hold_for_both_ways(decoder: Decoder, encode: Encode, rate: int) -> None:
    data = encode(np.random.default_rng(0).uniform(-0.5, 0.5, 3 * rate).astype(np.float32), rate, subtype="PCM_16")
    with pytest.raises(OffkeyError) as refused:
        decoder.decode(data, RATE)
    assert refused.value.kind is ErrorKind.CLIP_TOO_LONG


@pytest.mark.parametrize("rate", [RATE, 8_000])
def test_the_budget_holds_for_both_ways(decoder: Decoder, encode: Encode, rate: int) -> None:
    with pytest.raises(OffkeyError) as refused:
        decoder.decode(clip(encode, rate, subtype="PCM_16"), RATE, Budget(RATE - 1))
    assert refused.value.kind is ErrorKind.TOO_MUCH_AUDIO
