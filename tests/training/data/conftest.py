"""Small collections of made-up sound."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def write_clips(tmp_path: Path) -> Callable[..., Path]:
    """`write_clips("a/b.wav", ..., samples=3200, channels=1)`: noise below the test's folder, each its own."""

    def write(*names: str, samples: int = 3_200, channels: int = 1) -> Path:
        for number, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (samples, channels) if channels > 1 else samples
            soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(shape), 16_000)
        return tmp_path

    return write
