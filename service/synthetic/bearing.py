"""A synthetic electric motor on a ball bearing, and a defect of the outer race."""

import math
from dataclasses import dataclass

import numpy as np

from service.synthetic.condition import Condition, Size
from service.synthetic.signal import (
    Mode,
    Signal,
    Spectrum,
    event_times,
    gain,
    harmonics,
    noise,
    ring,
    shaft_angle,
)


@dataclass(frozen=True)
class Bearing:
    """Hum and shaft tones of a motor over the noise of rolling.

    The stator's magnetic pull follows the square of the field, so hum stands at multiples of twice the line
    frequency; slots of the rotor passing the stator add tones at `R f_r ± 2 f_line` (Randall,
    Vibration-based Condition Monitoring). An inverter sets the line frequency in proportion to speed.

    The fault is a spall in the outer race. Balls pass it
    `BPFO = n / 2 · f_r · (1 - d / D · cos(phi))` times per second, with `n` balls of diameter `d` on a pitch
    circle of diameter `D` and the contact angle `phi` (Harris, Rolling Bearing Analysis; Randall and Antoni,
    Rolling element bearing diagnostics: a tutorial, 2011, which also states the random slip of 1-2 % between
    passages). Each passage is an impact that sets a resonance of a few kHz ringing (McFadden and Smith,
    1984).
    The default geometry is that of a 6205 deep-groove ball bearing.

    Attributes:
        balls: `n`.
        ball_mm: `d`, mm.
        pitch_mm: `D`, mm.
        contact_angle_rad: `phi`, rad.
        slip: standard deviation of the interval between impacts over its mean.
        pole_pairs: pole pairs of the motor; the line frequency is `pole_pairs f_r` (slip of a few percent neglected).
        rotor_slots: `R`.
        wander: standard deviation of the speed over its mean.
        hum_db: RMS levels of the multiples of twice the line frequency at rated load, dB.
        shaft_db: RMS levels of the shaft harmonics, dB.
        slot_db: RMS level of each slot tone, dB.
        rolling_db: RMS level of the rolling noise, dB.
        rolling_spectrum: its density, (Hz, dB); it shows the same resonance as the impacts.
        impact_db: peak level at severity 1 and rated load of an impact, dB.
        impact_spread: standard deviation of the impacts' strength over its mean.
        housing: resonances of race and housing.
    """

    balls: int = 9
    ball_mm: float = 7.94
    pitch_mm: float = 39.04
    contact_angle_rad: float = 0.0
    slip: float = 0.015
    pole_pairs: int = 2
    rotor_slots: int = 28
    wander: float = 0.001
    hum_db: tuple[float, ...] = (0.0, -8.0, -13.0, -19.0)
    shaft_db: tuple[float, ...] = (-10.0, -16.0, -22.0)
    slot_db: float = -18.0
    rolling_db: float = -4.0
    rolling_spectrum: Spectrum = (
        (80.0, -6.0),
        (500.0, 0.0),
        (2000.0, -6.0),
        (3200.0, -4.0),
        (4500.0, -10.0),
        (8000.0, -22.0),
    )
    impact_db: float = 13.0
    impact_spread: float = 0.2
    housing: tuple[Mode, ...] = (Mode(3200.0, 0.05), Mode(5400.0, 0.04, -8.0))

    @property
    def passages_per_turn(self) -> float:
        """Number of balls that pass a point of the outer race per turn of the shaft: BPFO over `f_r`."""
        return self.balls / 2.0 * (1.0 - self.ball_mm / self.pitch_mm * math.cos(self.contact_angle_rad))

    def render(self, condition: Condition, severity: float, rng: np.random.Generator, size: Size) -> Signal:
        """See `Physics.render`."""
        rng, fault = rng.spawn(2)
        angle = shaft_angle(condition.shaft_hz, self.wander, rng, *size)
        load = condition.load * (1.0 + 0.05 * rng.standard_normal())
        hum = 2.0 * self.pole_pairs * angle
        sound = load * harmonics(hum, self.hum_db, rng)
        sound += harmonics(angle, self.shaft_db, rng)
        for side in (-1.0, 1.0):
            sound += harmonics(self.rotor_slots * angle + side * hum, [self.slot_db], rng)
        sound += gain(self.rolling_db + 0.5 * rng.standard_normal()) * noise(self.rolling_spectrum, rng, *size)
        if severity > 0:
            times = event_times(angle, self.passages_per_turn, fault, slip=self.slip)
            strengths = 1.0 + self.impact_spread * fault.standard_normal(len(times))
            impacts = ring(times, strengths, self.housing, *size)
            sound += severity * load * gain(self.impact_db) * impacts
        return sound
