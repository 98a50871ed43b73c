"""What the projection is fitted on."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from training.config import Config, ConfigError
from training.data.orders import WithoutReplacement
from training.data.windows import Window
from training.factory import build_student
from training.mixing import mix
from training.sounds import Sounds
from training.whitening import Covariance, fit_whitening


@pytest.mark.parametrize("covariance", ["within-noise", "total"])
def test_moments_equal_those_of_numpy(tiny_config: Callable[..., Config], covariance: Covariance) -> None:
    config = tiny_config()
    student = build_student(config)
    sounds = Sounds.load(config, student.sample_rate)
    mixtures = 2 * len(sounds.sources) + 1
    # The slow reference: pair by pair, each source with the next two noises in their shuffled order.
    source, noise = WithoutReplacement(len(sounds.sources), 3, 3), WithoutReplacement(len(sounds.noises), 3, 4)
    clean = sounds.audio.batch([sounds.sources[source[pair]] for pair in range(mixtures)])
    waves = [clean]
    for turn in (0, 1):
        drawn = [sounds.noises[noise[2 * pair + turn]] for pair in range(mixtures)]
        waves.append(mix(clean, sounds.audio.batch(drawn), 0.0))
    with torch.no_grad():
        pooled = [student.read(wave).pooled.double().numpy() for wave in waves]
    _, first, second = pooled
    everything = np.concatenate(pooled)
    rows = first - second if covariance == "within-noise" else everything
    expected = np.cov(rows.T, bias=True)
    fit_whitening(
        student,
        sounds.sources,
        sounds.noises,
        sounds.audio.batch,
        covariance=covariance,
        epsilon=0.01,
        mixtures=mixtures,
        seed=3,
    )
    assert np.allclose(student.readout.whitening.mean, everything.mean(axis=0), atol=1e-5)
    inverse = np.linalg.inv(student.readout.whitening.matrix.double().numpy())
    ridge = 0.01 * np.trace(expected) / len(expected) * np.eye(len(expected))
    assert np.allclose(inverse @ inverse, expected + ridge, atol=1e-3 * np.abs(expected).max())


def test_none_leaves_the_read_out_alone_and_one_noise_is_too_few(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config()
    student = build_student(config)
    sounds = Sounds.load(config, student.sample_rate)

    def fit(noises: Sequence[Window], covariance: Covariance, mixtures: int) -> None:
        fit_whitening(
            student,
            sounds.sources,
            noises,
            sounds.audio.batch,
            covariance=covariance,
            epsilon=0.01,
            mixtures=mixtures,
            seed=0,
        )

    fit(sounds.noises[:1], "none", 0)
    assert torch.equal(student.readout.whitening.matrix, torch.eye(student.dim))
    for noises, mixtures in ((sounds.noises[:1], 4), (sounds.noises, 0)):
        with pytest.raises(ConfigError, match="at least one pair of mixtures and two noises"):
            fit(noises, "total", mixtures)
