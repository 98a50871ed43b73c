"""What the projection is fitted on."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from training.build import build_student
from training.config import Config
from training.mixing import mix
from training.sounds import Sounds
from training.whitening import fit_whitening


@pytest.mark.parametrize("covariance", ["within-noise", "total"])
def test_moments_equal_those_of_numpy(tiny_config: Callable[..., Config], covariance: str) -> None:
    config = tiny_config()
    student = build_student(config)
    sounds = Sounds.load(config, student.sample_rate)
    windows = (*sounds.sources, *sounds.noises)
    # The slow reference: every window clean and with its two followers in the shuffled order as noise.
    order = np.random.default_rng(3).permutation(len(windows))
    waves = sounds.audio.batch([windows[index] for index in order])
    with torch.no_grad():
        parts = [waves, mix(waves, waves.roll(-1, 0), 0.0), mix(waves, waves.roll(-2, 0), 0.0)]
        clean, first, second = (student.read(part).pooled.double().numpy() for part in parts)
    everything = np.concatenate([clean, first, second])
    rows = first - second if covariance == "within-noise" else everything
    expected = np.cov(rows.T, bias=True)
    fit_whitening(
        student,
        windows,
        sounds.audio.batch,
        covariance=covariance,
        epsilon=0.01,
        seed=3,  # type: ignore[arg-type]
    )
    assert np.allclose(student.readout.whitening.mean, everything.mean(axis=0), atol=1e-5)
    inverse = np.linalg.inv(student.readout.whitening.matrix.double().numpy())
    ridge = 0.01 * np.trace(expected) / len(expected) * np.eye(len(expected))
    assert np.allclose(inverse @ inverse, expected + ridge, atol=1e-3 * np.abs(expected).max())


def test_none_leaves_the_read_out_alone_and_two_windows_are_too_few(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config()
    student = build_student(config)
    sounds = Sounds.load(config, student.sample_rate)
    fit_whitening(student, sounds.sources, sounds.audio.batch, covariance="none", epsilon=0.01, seed=0)
    assert torch.equal(student.readout.whitening.matrix, torch.eye(student.dim))
    with pytest.raises(ValueError, match="at least 3 windows"):
        fit_whitening(student, sounds.sources[:2], sounds.audio.batch, covariance="total", epsilon=0.01, seed=0)
