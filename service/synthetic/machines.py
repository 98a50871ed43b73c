"""The synthetic example machines and their clips."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.synthetic.bearing import Bearing
from service.synthetic.condition import HALL, WORKSHOP, Condition, Physics
from service.synthetic.fan import Fan
from service.synthetic.gearbox import Gearbox
from service.synthetic.pump import Pump
from service.synthetic.signal import gain, rms

Split = Literal["train", "test"]
Domain = Literal["source", "target"]

SAMPLE_RATE = 16_000  # Hz
SECONDS = 10.0
LEVEL_DBFS = -26.0  # RMS; leaves 26 dB for peaks
_GAIN_DB = 1.0  # half the width of the random gain


@dataclass(frozen=True)
class SyntheticMachine:
    """A machine whose sound is computed, not recorded.

    Attributes:
        machine_id: machine id, which ends in `-synthetic`.
        title: display name, which includes "synthetic".
        fault: description of the fault.
        physics: sound model.
        source: operating point of the source domain.
        target: operating point of the target domain, with another speed, load and background.
    """

    machine_id: str
    title: str
    fault: str
    physics: Physics
    source: Condition
    target: Condition

    def condition(self, domain: Domain) -> Condition:
        """Return the operating point of a domain.

        Raises:
            ValueError: the domain is neither `source` nor `target`.
        """
        if domain == "source":
            return self.source
        if domain == "target":
            return self.target
        raise ValueError(f"A domain is 'source' or 'target', got {domain!r}.")

    def clip(
        self,
        *,
        split: Split,
        domain: Domain,
        number: int,
        severity: float = 0.0,
        seconds: float = SECONDS,
        sample_rate: int = SAMPLE_RATE,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Synthesize one clip.

        The same arguments give the same samples. A clip's random numbers depend on the seed, the machine, the
        split, the domain, the label (healthy or faulty) and the number, not on the severity. Every clip has
        an RMS of -26 dBFS before a random gain of at most 1 dB, so the level is independent of the fault.

        Args:
            split: `train` or `test`.
            domain: `source` or `target`.
            number: number of the clip within its split, domain and label, from 0.
            severity: severity of the fault, in [0, 1]; 0 is healthy.
            seconds: duration, s.
            sample_rate: sample rate, Hz.
            seed: seed of all clips, not negative.

        Returns:
            Samples `(samples,)` with full scale 1.

        Raises:
            ValueError: a severity outside [0, 1], an unknown domain, too short a clip, or a negative seed.
        """
        if not 0.0 <= severity <= 1.0:
            raise ValueError(f"A severity lies in [0, 1], from healthy to worst; got {severity}.")
        condition = self.condition(domain)
        samples = round(seconds * sample_rate)
        if samples < sample_rate * 0.1:
            raise ValueError(f"A synthetic clip is at least 0.1 s long, got {seconds} s.")
        label = "anomaly" if severity > 0 else "normal"
        key = hashlib.sha256(f"{self.machine_id}/{split}/{domain}/{label}/{number}".encode()).digest()
        rng = np.random.default_rng(np.random.SeedSequence([seed, int.from_bytes(key)]))
        machine_rng, background_rng, level_rng = rng.spawn(3)
        sound = self.physics.render(condition, severity, machine_rng, (samples, sample_rate))
        sound += condition.background.render(background_rng, samples, sample_rate)
        level_db = LEVEL_DBFS + level_rng.uniform(-_GAIN_DB, _GAIN_DB)
        return (sound * (gain(level_db) / rms(sound))).astype(np.float32)


_ALL = (
    SyntheticMachine(
        machine_id="fan-synthetic",
        title="Axial fan (synthetic)",
        fault="damaged blade",
        physics=Fan(),
        source=Condition(speed_rpm=1480, load=1.0, background=HALL),
        target=Condition(speed_rpm=1180, load=0.7, background=WORKSHOP),
    ),
    SyntheticMachine(
        machine_id="gearbox-synthetic",
        title="Gearbox (synthetic)",
        fault="chipped tooth",
        physics=Gearbox(),
        source=Condition(speed_rpm=1760, load=1.0, background=HALL),
        target=Condition(speed_rpm=1420, load=0.7, background=WORKSHOP),
    ),
    SyntheticMachine(
        machine_id="pump-synthetic",
        title="Centrifugal pump (synthetic)",
        fault="cavitation",
        physics=Pump(),
        source=Condition(speed_rpm=2950, load=1.0, background=HALL),
        target=Condition(speed_rpm=2400, load=0.7, background=WORKSHOP),
    ),
    SyntheticMachine(
        machine_id="bearing-synthetic",
        title="Motor bearing (synthetic)",
        fault="outer race defect",
        physics=Bearing(),
        source=Condition(speed_rpm=1480, load=1.0, background=HALL),
        target=Condition(speed_rpm=1250, load=0.7, background=WORKSHOP),
    ),
)

MACHINES: Mapping[str, SyntheticMachine] = MappingProxyType({machine.machine_id: machine for machine in _ALL})
"""The example machines by `machine_id`."""
