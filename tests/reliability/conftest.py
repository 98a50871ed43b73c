"""Fixtures of the reliability tests."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(size)` -> a folder on a disk of `size` bytes; needs the right to mount."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)
