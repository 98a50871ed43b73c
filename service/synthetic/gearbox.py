"""A synthetic single-stage gearbox, and a chipped tooth."""

from dataclasses import dataclass

import numpy as np

from service.synthetic.condition import Condition, Size
from service.synthetic.signal import (
    Mode,
    Signal,
    Spectrum,
    contact,
    event_times,
    gain,
    harmonics,
    modulation,
    noise,
    ring,
    shaft_angle,
)


@dataclass(frozen=True)
class Gearbox:
    """Mesh tones with sidebands of both shafts, over the noise of rolling contact.

    Teeth meet `f_m = z_1 f_1 = z_2 f_2` times per second, so tones stand at `k f_m`, with `z` teeth on a
    shaft of `f` turns per second. Eccentric wheels modulate them once per turn, which puts sidebands at
    `k f_m ± f_1` and `k f_m ± f_2` (McFadden, Detecting fatigue cracks in gears by amplitude and phase
    demodulation of the meshing vibration, 1986; the amplitude part of that model is what is built here).
    Mesh vibration grows with the torque carried; noise of the contact hardly does.

    The fault is a chipped tooth on the pinion. While it is in mesh the tooth pair is softer: a short
    modulation once per turn, which is many weak sidebands `f_1` apart. As the next tooth takes over the load
    there is one impact per turn of the pinion, which sets the casing ringing (Randall, Vibration-based
    Condition Monitoring).

    Attributes:
        pinion_teeth: `z_1`, on the input shaft, whose speed the condition states.
        wheel_teeth: `z_2`, on the output shaft.
        wander: standard deviation of the speed over its mean.
        mesh_db: RMS levels of the mesh harmonics at rated load, dB.
        contact_db: RMS level of the contact noise, dB.
        contact_spectrum: its density, (Hz, dB).
        pinion_depth: modulation depth of the healthy pinion.
        wheel_depth: modulation depth of the wheel.
        chip_depth: height at severity 1 of the modulation by the chipped tooth.
        impact_db: peak level at severity 1 and rated load of the impact, dB.
        impact_spread: standard deviation of the impacts' strength over its mean.
        casing: resonances of the casing.
    """

    pinion_teeth: int = 23
    wheel_teeth: int = 67
    wander: float = 0.002
    mesh_db: tuple[float, ...] = (0.0, -4.0, -9.0, -13.0, -18.0, -22.0)
    contact_db: float = -6.0
    contact_spectrum: Spectrum = (
        (100.0, -12.0),
        (800.0, 0.0),
        (2500.0, -3.0),
        (4500.0, -10.0),
        (8000.0, -20.0),
    )
    pinion_depth: float = 0.12
    wheel_depth: float = 0.08
    chip_depth: float = 1.6
    impact_db: float = 12.0
    impact_spread: float = 0.15
    casing: tuple[Mode, ...] = (Mode(1900.0, 0.03), Mode(3300.0, 0.025, -3.0), Mode(5200.0, 0.02, -8.0))

    def render(self, condition: Condition, severity: float, rng: np.random.Generator, size: Size) -> Signal:
        """See `Physics.render`."""
        rng, fault = rng.spawn(2)
        pinion = shaft_angle(condition.shaft_hz, self.wander, rng, *size)
        wheel = pinion * (self.pinion_teeth / self.wheel_teeth)
        torque = condition.load * (1.0 + 0.05 * rng.standard_normal())
        mesh = torque * harmonics(self.pinion_teeth * pinion, self.mesh_db, rng)
        eccentric = modulation(pinion, self.pinion_depth, rng) * modulation(wheel, self.wheel_depth, rng)
        rolling = gain(self.contact_db + 0.5 * rng.standard_normal()) * noise(self.contact_spectrum, rng, *size)
        if severity == 0:
            return mesh * eccentric + rolling
        # The chipped tooth is in mesh for about one tooth pitch.
        chip = self.chip_depth * severity * contact(pinion, np.pi / self.pinion_teeth)
        times = event_times(pinion, 1.0, fault)
        strengths = 1.0 + self.impact_spread * fault.standard_normal(len(times))
        impacts = ring(times, strengths, self.casing, *size)
        return mesh * (eccentric + chip) + rolling + severity * torque * gain(self.impact_db) * impacts
