"""A synthetic axial fan, and a damaged blade."""

from dataclasses import dataclass

import numpy as np

from service.synthetic.condition import Condition, Size
from service.synthetic.signal import (
    Signal,
    Spectrum,
    contact,
    gain,
    harmonics,
    modulation,
    noise,
    shaft_angle,
)


@dataclass(frozen=True)
class Fan:
    """Blade-pass tones over the noise of the flow.

    Each blade sweeps past the struts once per turn, so tones stand at `k Z f_r`, with `Z` blades and `f_r`
    turns per second (Norton and Karczub, Fundamentals of Noise and Vibration Analysis for Engineers).
    Flow noise is broadband; its spectrum moves in proportion to speed, at constant Strouhal number `f D / U`
    (same source). Off the design load the flow separates and the broadband part rises; the slope of
    `stall_db` is this model's choice.

    The fault is a blade that has lost material. Its missing mass is an imbalance: a force, hence a tone, at
    `f_r` (Randall, Vibration-based Condition Monitoring). As one blade in `Z` differs, tones and flow
    are modulated once per turn, which puts sidebands at `k Z f_r ± f_r`. The bent tip rubs the shroud once
    per turn: a burst of scraping noise.

    Attributes:
        blades: `Z`.
        rated_rpm: speed at which `flow_spectrum` is stated.
        wander: standard deviation of the speed over its mean.
        blade_db: RMS levels of the blade-pass harmonics, dB.
        shaft_db: RMS levels of the shaft harmonics of the healthy fan (no rotor is perfectly balanced), dB.
        flow_db: RMS level of the flow noise at rated load, dB.
        stall_db: rise of the flow noise per unit of load below the rated one, dB.
        flow_spectrum: density of the flow noise, (Hz, dB).
        uneven: depth of the once-per-turn modulation of the healthy fan.
        damage_depth: increase of that depth by a fault of severity 1.
        imbalance_db: level gained by the shaft tones at severity 1, dB.
        rub_db: peak level of the rub at severity 1, dB.
        rub_width_rad: arc of the contact (standard deviation), rad.
        rub_spectrum: density of the scraping, (Hz, dB).
    """

    blades: int = 7
    rated_rpm: float = 1480.0
    wander: float = 0.003
    blade_db: tuple[float, ...] = (0.0, -5.0, -10.0, -14.0, -19.0, -23.0)
    shaft_db: tuple[float, ...] = (-16.0, -20.0, -26.0)
    flow_db: float = 0.0
    stall_db: float = 8.0
    flow_spectrum: Spectrum = (
        (50.0, -8.0),
        (300.0, 0.0),
        (1000.0, -4.0),
        (3000.0, -14.0),
        (8000.0, -28.0),
    )
    uneven: float = 0.05
    damage_depth: float = 0.6
    imbalance_db: float = 12.0
    rub_db: float = 0.0
    rub_width_rad: float = 0.25
    rub_spectrum: Spectrum = (
        (400.0, -40.0),
        (1200.0, -12.0),
        (2200.0, 0.0),
        (3500.0, -4.0),
        (8000.0, -24.0),
    )

    def render(self, condition: Condition, severity: float, rng: np.random.Generator, size: Size) -> Signal:
        """See `Physics.render`."""
        rng, fault = rng.spawn(2)
        angle = shaft_angle(condition.shaft_hz, self.wander, rng, *size)
        flow_db = self.flow_db + self.stall_db * (1.0 - condition.load) + 0.5 * rng.standard_normal()
        flow = noise(self.flow_spectrum, rng, *size, stretch=condition.speed_rpm / self.rated_rpm)
        sound = harmonics(self.blades * angle, self.blade_db, rng) + gain(flow_db) * flow
        sound *= modulation(angle, self.uneven + self.damage_depth * severity, rng)
        shaft_db = [level + self.imbalance_db * severity for level in self.shaft_db]
        sound += harmonics(angle, shaft_db, rng)
        if severity > 0:
            scrape = noise(self.rub_spectrum, fault, *size)
            sound += severity * gain(self.rub_db) * contact(angle, self.rub_width_rad) * scrape
        return sound
