"""Operating conditions of a synthetic machine: speed, load and the background of the room."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.synthetic.signal import Mode, Signal, Spectrum, gain, noise, ring, slow_walk


@dataclass(frozen=True)
class Background:
    """The sound of a room without the machine.

    Attributes:
        name: display name.
        spectrum: spectral density, (Hz, dB).
        level_db: RMS level, dB re the machine's reference level (see `Physics`).
        spread_db: standard deviation of that level from clip to clip, dB.
        drift_db: standard deviation of the slow drift of the level within a clip, dB.
        knocks_per_second: mean rate of distant knocks (a Poisson process).
        knock_db: peak level of a typical knock, dB re the machine's reference level.
        knock_modes: resonances that a knock excites.
    """

    name: str
    spectrum: Spectrum
    level_db: float
    spread_db: float = 1.0
    drift_db: float = 0.7
    knocks_per_second: float = 0.0
    knock_db: float = 0.0
    knock_modes: tuple[Mode, ...] = (Mode(430.0, 0.03), Mode(1150.0, 0.02, -4.0))

    def render(self, rng: np.random.Generator, samples: int, sample_rate: int) -> Signal:
        """Synthesize the background of one clip, `(samples,)`."""
        level_db = self.level_db + self.spread_db * rng.standard_normal()
        drift_db = self.drift_db * slow_walk(rng, samples, sample_rate)
        steady = noise(self.spectrum, rng, samples, sample_rate) * 10.0 ** ((level_db + drift_db) / 20.0)
        knocks = rng.poisson(self.knocks_per_second * samples / sample_rate)
        times = rng.uniform(0.0, samples - 1.0, knocks)
        strengths = gain(self.knock_db) * np.exp(0.4 * rng.standard_normal(knocks))
        return steady + ring(times, strengths, self.knock_modes, samples, sample_rate)


HALL = Background(
    name="hall with ventilation",
    spectrum=((40.0, 0.0), (125.0, -3.0), (500.0, -11.0), (2000.0, -22.0), (8000.0, -36.0)),
    level_db=-8.0,
)

WORKSHOP = Background(
    name="workshop with other machines",
    spectrum=((40.0, -6.0), (250.0, -4.0), (1000.0, -5.0), (2500.0, -14.0), (8000.0, -30.0)),
    level_db=-6.0,
    drift_db=1.2,
    knocks_per_second=0.4,
    knock_db=3.0,
)


@dataclass(frozen=True)
class Condition:
    """One operating point: nominal `speed_rpm`, `load` as a share of the rated load, and the background."""

    speed_rpm: float
    load: float
    background: Background

    def __post_init__(self) -> None:
        if not (self.speed_rpm > 0 and 0 < self.load <= 1.5):
            raise ValueError(
                f"A condition needs speed_rpm > 0 and load in (0, 1.5], got speed_rpm={self.speed_rpm} and "
                f"load={self.load}."
            )

    @property
    def shaft_hz(self) -> float:
        """Nominal turns per second."""
        return self.speed_rpm / 60.0


Size = tuple[int, int]  # (samples, sample rate in Hz)


class Physics(Protocol):
    """Sound model of one kind of machine. Its levels are in dB re a reference of 1.0, the strongest component."""

    def render(self, condition: Condition, severity: float, rng: np.random.Generator, size: Size) -> Signal:
        """Synthesize the machine alone, without background and at an arbitrary level.

        The fault draws from a stream of its own: two renders from equal generators that differ in severity
        hold the same healthy machine.

        Args:
            condition: the operating point.
            severity: severity of the fault, in [0, 1]; 0 is healthy.
            rng: source of all random numbers.
            size: `(samples, sample_rate)`, the rate in Hz.

        Returns:
            Sound `(samples,)`.
        """
        ...
