"""A synthetic centrifugal pump, and cavitation."""

import math
from dataclasses import dataclass

import numpy as np

from service.synthetic.condition import Condition, Size
from service.synthetic.signal import Mode, Signal, Spectrum, gain, harmonics, noise, ring, shaft_angle


@dataclass(frozen=True)
class Pump:
    """Vane-pass tones over the turbulence of the flow.

    Each vane passes the volute's tongue once per turn, so tones stand at `k Z f_r`, with `Z` vanes and `f_r`
    turns per second; below the best efficiency point recirculation raises the low-frequency turbulence
    (Gülich, Centrifugal Pumps). The slope of `recirculation_db` is this model's choice.

    The fault is cavitation: vapor bubbles implode in bursts. An empty cavity of radius `R` under the
    pressure `p` collapses in `0.915 R sqrt(rho / p)` (Rayleigh, 1917). Each collapse is a short pulse,
    modeled here as a strongly damped oscillation of that period; the pulses come at random, more of them
    as a vane passes (Ross, Mechanics of Underwater Noise). Here both the rate of the bursts and the
    energy of a collapse are proportional to severity.

    Attributes:
        vanes: `Z`.
        rated_rpm: speed at which `flow_spectrum` is stated.
        wander: standard deviation of the speed over its mean.
        vane_db: RMS levels of the vane-pass harmonics, dB.
        shaft_db: RMS levels of the shaft harmonics, dB.
        flow_db: RMS level of the turbulence at rated load, dB.
        recirculation_db: rise of the turbulence per unit of load below the rated one, dB.
        flow_spectrum: density of the turbulence, (Hz, dB).
        bubble_radii_m: radii of the cavities, m.
        pressure_pa: pressure on the cavities, Pa.
        density_kg_m3: density of the liquid, kg/m^3.
        collapse_damping: damping ratio of a collapse's pulse.
        bursts_per_second: mean rate of bursts at severity 1.
        burst_seconds: mean age of a collapse within its burst, s.
        collapses_per_burst: mean number of collapses before those between two vanes are thinned out.
        vane_depth: depth of the modulation of collapses by the vanes, in [0, 1].
        collapse_db: typical peak level of a collapse at severity 1, dB.
        collapse_spread: standard deviation of the logarithm of a collapse's strength.
    """

    vanes: int = 6
    rated_rpm: float = 2950.0
    wander: float = 0.0015
    vane_db: tuple[float, ...] = (0.0, -6.0, -12.0, -17.0, -21.0)
    shaft_db: tuple[float, ...] = (-10.0, -14.0, -20.0)
    flow_db: float = 0.0
    recirculation_db: float = 8.0
    flow_spectrum: Spectrum = (
        (60.0, 0.0),
        (400.0, -3.0),
        (1500.0, -9.0),
        (4000.0, -17.0),
        (8000.0, -24.0),
    )
    bubble_radii_m: tuple[float, ...] = (1.6e-3, 2.2e-3, 3.2e-3)
    pressure_pa: float = 1.0e5
    density_kg_m3: float = 998.0
    collapse_damping: float = 0.2
    bursts_per_second: float = 14.0
    burst_seconds: float = 0.03
    collapses_per_burst: float = 90.0
    vane_depth: float = 0.7
    collapse_db: float = 10.0
    collapse_spread: float = 0.4

    def collapse_seconds(self, radius_m: float) -> float:
        """Compute the time in which an empty cavity collapses (Rayleigh, 1917), s."""
        return 0.915 * radius_m * math.sqrt(self.density_kg_m3 / self.pressure_pa)

    def render(self, condition: Condition, severity: float, rng: np.random.Generator, size: Size) -> Signal:
        """See `Physics.render`."""
        rng, fault = rng.spawn(2)
        angle = shaft_angle(condition.shaft_hz, self.wander, rng, *size)
        flow_db = self.flow_db + self.recirculation_db * (1.0 - condition.load) + 0.5 * rng.standard_normal()
        flow = noise(self.flow_spectrum, rng, *size, stretch=condition.speed_rpm / self.rated_rpm)
        sound = harmonics(self.vanes * angle, self.vane_db, rng)
        sound += harmonics(angle, self.shaft_db, rng)
        sound += gain(flow_db) * flow
        if severity > 0:
            sound += self._cavitation(angle, severity, fault, size[1])
        return sound

    def _cavitation(self, angle: Signal, severity: float, rng: np.random.Generator, sample_rate: int) -> Signal:
        samples = len(angle)
        bursts = rng.poisson(severity * self.bursts_per_second * samples / sample_rate)
        starts = rng.uniform(0.0, samples, bursts)  # (bursts,)
        starts = np.repeat(starts, rng.poisson(self.collapses_per_burst, bursts))  # (collapses,)
        times = starts + rng.exponential(self.burst_seconds * sample_rate, len(starts))
        times = times[times < samples]
        chance = (1.0 + self.vane_depth * np.cos(self.vanes * angle[times.astype(np.int64)])) / 2.0
        times = times[rng.uniform(0.0, 1.0, len(times)) < chance]
        strengths = np.exp(self.collapse_spread * rng.standard_normal(len(times)))
        # Bubbles of each size ring alone: a pulse has one period.
        size = rng.integers(0, len(self.bubble_radii_m), len(times))
        crackle = np.zeros(samples)
        for index, radius in enumerate(self.bubble_radii_m):
            pulse = Mode(1.0 / self.collapse_seconds(radius), self.collapse_damping)
            mine = size == index
            crackle += ring(times[mine], strengths[mine], [pulse], samples, sample_rate)
        return math.sqrt(severity) * gain(self.collapse_db) * crackle
