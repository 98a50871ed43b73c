"""The projection of a read-out: mean and covariance of general audio in noise, fitted once and cached."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from training.config import Config, ConfigError
from training.data.orders import WithoutReplacement
from training.data.windows import Window, save_array
from training.mixing import mix
from training.processes import Processes
from training.sounds import Sounds
from training.student import Student

Covariance = Literal["within-noise", "total", "none"]
_BATCH = 16
# Students of several training seeds have one space, so their distances to the target can be compared.
_SEED = 0
_SAVED = "student.readout.whitening."  # prefix of the projection in a checkpoint


class Whitener:
    """Sets the projection of students: from a checkpoint, from the cache, or by fitting it on the sounds of a run."""

    def __init__(self, config: Config, sounds: Sounds, processes: Processes, progress: Progress) -> None:
        self._config = config
        self._sounds = sounds
        self._processes = processes
        self._progress = progress

    def restore_or_fit(self, student: Student, tensors: Mapping[str, Tensor], prefix: str = _SAVED) -> None:
        """Set the projection that a checkpoint holds; fit one if it holds none."""
        saved = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if saved:
            student.readout.whitening.load_state_dict(saved)
        else:
            self.fit(student)

    def fit(self, student: Student) -> None:
        """Fit the projection, or load it from the cache. All processes get the same bits."""
        if self._config.readout.covariance == "none":
            return
        whitening, first = student.readout.whitening, self._processes.first
        path = Path(self._config.data.cache) / "whitening" / f"{self._key(student)}.npy"
        cached = _load(path) if first else None
        # Another run may write the file between the looks of two processes, so the first one decides.
        is_cached = torch.tensor(float(cached is not None), device=self._processes.device)
        self._processes.share(is_cached)
        if cached is not None:
            whitening.mean.copy_(cached[0])
            whitening.matrix.copy_(cached[1:])
        if not is_cached:
            self._fit(student)
        for part in (whitening.mean, whitening.matrix):
            self._processes.share(part)
        if first and cached is None:
            save_array(path, torch.cat([whitening.mean[None], whitening.matrix]).cpu().numpy())

    def _fit(self, student: Student) -> None:
        readout = self._config.readout
        task = self._progress.add_task("whitening", total=readout.mixtures)

        def load(windows: Sequence[Window]) -> Tensor:
            return self._sounds.audio.batch(windows).to(self._processes.device)

        fit_whitening(
            student,
            self._sounds.sources,
            self._sounds.noises,
            load,
            covariance=readout.covariance,
            epsilon=readout.epsilon,
            mixtures=readout.mixtures,
            seed=_SEED,
            progress=lambda done: self._progress.update(task, completed=done),
        )

    def _key(self, student: Student) -> str:
        """Hash everything that a projection depends on: the student before it, the clips, and how they are drawn."""
        readout = self._config.readout
        parts = [student.fingerprint(), self._sounds.fingerprint, self._config.data.window_seconds]
        parts += [readout.covariance, readout.epsilon, readout.mixtures]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def fit_whitening(
    student: Student,
    sources: Sequence[Window],
    noises: Sequence[Window],
    load: Callable[[Sequence[Window]], Tensor],
    *,
    covariance: Covariance,
    epsilon: float,
    mixtures: int,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Fit the projection of a student's read-out in closed form.

    A source is embedded clean and at 0 dB with each of two noises. The mean is over all three. `total` is the
    covariance of all three; `within-noise` is that of the difference between the two mixtures, so that directions
    which noise moves count little and directions which it leaves alone count much.

    Args:
        student: student to whiten in place.
        sources: windows of general audio, of one length; drawn without replacement, then again.
        noises: windows of noise, at least two; drawn in the same way.
        load: function that returns the samples `(batch, samples)` of windows.
        covariance: covariance to whiten with; `none` leaves the read-out unchanged.
        epsilon: regularization, as in `Whitening.fit`.
        mixtures: number of pairs of mixtures; should be larger than the length of the embedding.
        seed: seed of the draws.
        progress: callback with the number of pairs that are done.

    Raises:
        ConfigError: fewer than two noises, or no pair at all.
    """
    if covariance == "none":
        return
    if len(noises) < 2 or mixtures < 1:
        raise ConfigError(
            f"Whitening needs at least one pair of mixtures and two noises, not {mixtures} (`readout.mixtures`) and "
            f"{len(noises)}. Add noise, or set `readout.covariance=none`."
        )
    source, noise = WithoutReplacement(len(sources), seed, 3), WithoutReplacement(len(noises), seed, 4)
    total, difference = _Moments(student.dim), _Moments(student.dim)
    for begin in range(0, mixtures, _BATCH):
        pairs = range(begin, min(begin + _BATCH, mixtures))
        clean = load([sources[source[pair]] for pair in pairs])
        first, second = (load([noises[noise[2 * pair + side]] for pair in pairs]) for side in (0, 1))
        with torch.inference_mode():
            pooled = [
                student.read(waveform).pooled.double().cpu()
                for waveform in (clean, mix(clean, first, 0.0), mix(clean, second, 0.0))
            ]
        for part in pooled:
            total.add(part)
        difference.add(pooled[1] - pooled[2])
        progress(pairs.stop)
    chosen = difference if covariance == "within-noise" else total
    student.readout.whitening.fit(total.mean, chosen.covariance, epsilon)


class _Moments:
    def __init__(self, dim: int) -> None:
        self.count = 0
        self.sum = torch.zeros(dim, dtype=torch.float64)
        self.products = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:  # (batch, dim)
        self.count += len(rows)
        self.sum += rows.sum(dim=0)
        self.products += rows.T @ rows

    @property
    def mean(self) -> Tensor:
        return self.sum / self.count

    @property
    def covariance(self) -> Tensor:
        return self.products / self.count - torch.outer(self.mean, self.mean)


def _load(path: Path) -> Tensor | None:
    try:
        return torch.from_numpy(np.load(path))
    except (OSError, ValueError, EOFError):  # absent, or truncated by a crash
        return None
