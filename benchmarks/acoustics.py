"""Measure how often clips have warnings: healthy clips as they are, and altered as by a recorder.

    python benchmarks/acoustics.py --machines DIR --noise DIR [--draws N]

The train clips of each machine are enrolled under their domains, each as a recording of its own. The test clips are
encoded as files and compared with them as the service does. The synthetic machines have another seed than those that
the margins were chosen on.
"""

import argparse
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from machine import write
from rich.console import Console
from rich.progress import track
from rich.table import Table

from offkey.vocabulary import Domain
from service.audio.decode import AudioLimits, Samples, decode
from service.bank import Bank, BankRows, Calibration, CalibrationRows
from service.domain.acoustics import Acoustics, measure
from service.domain.envelope import Envelope, closest_differences
from service.encoder.encoder import Encoder
from service.settings import Device, shipped_bundle
from service.synthetic import plan_tree, write_tree
from training.evaluation.noise import KINDS, ROLES, Kind, Noise, generator, unit_power
from training.evaluation.protocol import Sound, at_level
from training.evaluation.tree import JudgedMachine, read_tree

RATE = 16_000  # Hz
BANKS = (2, 3, 5, 10)  # clips
NOISE_CLIPS = 5  # clips posted to /noise
TRIALS = 20  # clips of noise alone
LIMITS = AudioLimits()

Alteration = Callable[[Samples], tuple[Samples, int]]  # waveform at RATE -> samples and rate of a file


def low_pass(samples: Samples, hertz: float = 2_000.0) -> Samples:
    """Remove everything above `hertz`."""
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(len(samples), 1 / RATE) > hertz] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def in_noise(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """Add noise at a signal-to-noise ratio."""
    gain = np.sqrt(np.var(samples) / max(np.var(noise), 1e-12) / 10 ** (snr_db / 10))
    return (samples + np.float32(gain) * (noise - noise.mean())).astype(np.float32)


def alterations(draw: Callable[[int], Samples]) -> dict[str, Alteration]:
    """List alterations by name. `draw` returns a segment of noise of a length."""
    return {
        "as it is": lambda clip: (clip, RATE),
        "first 3 s": lambda clip: (clip[: 3 * RATE], RATE),
        "-20 dB": lambda clip: (clip / 10, RATE),
        "+40 dB, clipped": lambda clip: (np.clip(clip * 100, -1, 1), RATE),
        "low-passed at 2 kHz": lambda clip: (low_pass(clip), RATE),
        "file of 8 kHz": lambda clip: (soxr.resample(clip, RATE, 8_000), 8_000),
        "resampled from 8 kHz": lambda clip: (soxr.resample(soxr.resample(clip, RATE, 8_000), 8_000, RATE), RATE),
        "noise at 0 dB": lambda clip: (in_noise(clip, draw(len(clip)), 0.0), RATE),
        "noise at 10 dB": lambda clip: (in_noise(clip, draw(len(clip)), 10.0), RATE),
    }


def measured(samples: Samples, rate: int = RATE) -> tuple[Acoustics, float]:
    """Measure the acoustics and duration (s) of a 16-bit file, as the service does."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    clip = decode(file.getvalue(), sample_rate=RATE, limits=LIMITS)
    found = measure(
        clip.samples,
        RATE,
        source_rate=clip.source_sample_rate,
        channels=clip.source_channels,
        clipped=clip.source_clipped,
    )
    return found, clip.seconds


def envelopes(clips: Sequence[tuple[Domain, Acoustics]]) -> list[Envelope]:
    """Fit an envelope for each domain that has enough clips."""
    of_domains = [[found for domain, found in clips if domain is own] for own in Domain]
    return [envelope for own in of_domains if (envelope := Envelope.of(own, range(len(own)))) is not None]


def judge(machine: JudgedMachine, noise: Noise, draws: int) -> dict[str, Any]:
    """Compute the shares of clips that have warnings."""
    rng = generator(0, machine.name)
    stretches = [noise.draws(kind, "test", rng) for kind in KINDS]
    altered = alterations(lambda length: stretches[int(rng.integers(len(stretches)))].take(length))
    enrolled = [(clip.domain, measured(read(clip.path))[0]) for clip in machine.train]
    healthy = [(clip.domain, read(clip.path)) for clip in machine.test if not clip.anomalous]
    faulty = [measured(read(clip.path)) for clip in machine.test if clip.anomalous]
    whole = envelopes(enrolled)
    clips_by_name = {name: [measured(*alter(clip)) for _, clip in healthy] for name, alter in altered.items()}
    rates = {name: share(whole, clips) for name, clips in clips_by_name.items()}
    rates["a fault"] = share(whole, faulty)
    for kind in KINDS:
        rates[f"enrolled in {kind} noise, other stretches of it"] = in_enrolled_noise(machine, noise, kind)
    source = [clip for clip in enrolled if clip[0] is Domain.SOURCE]
    of_source = {
        name: [one for one, (domain, _) in zip(clips, healthy, strict=True) if domain is Domain.SOURCE]
        for name, clips in clips_by_name.items()
    }
    small = {
        str(size): small_banks(source, size, of_source, draws, np.random.default_rng(size))
        for size in BANKS
        if size < len(source)
    }
    return {"enrolled": len(enrolled), "healthy": len(healthy), "faulty": len(faulty), "rates": rates, "small": small}


def in_enrolled_noise(machine: JudgedMachine, noise: Noise, kind: Kind) -> float:
    """Compute the share for healthy clips in noise of an enrolled kind, from other recordings."""
    bank, test = (Sound("mixture", role, kind, 0.0, 0).waveforms(machine, noise, RATE) for role in ("bank", "test"))
    enrolled = [(clip.domain, measured(samples)[0]) for clip, samples in zip(machine.train, bank, strict=True)]
    healthy = [measured(samples) for clip, samples in zip(machine.test, test, strict=True) if not clip.anomalous]
    return share(envelopes(enrolled), healthy)


def not_audible(machine: JudgedMachine, noise: Noise, encoder: Encoder, kind: Kind) -> dict[str, float]:
    """Compute the shares of clips that are classified as background: healthy clips in noise, and noise alone.

    The noise of bank and noise clips is from some recordings. Scored clips are in noise from other recordings, or are
    noise alone, from either.
    """
    rng = generator(0, machine.name, kind, "alone")
    stretches = {role: noise.draws(kind, role, rng) for role in ROLES}
    bank = [
        encoder.embed(samples)[0] for samples in Sound("mixture", "bank", kind, 0.0, 0).waveforms(machine, noise, RATE)
    ]
    known = [encoder.embed(at_level(unit_power(stretches["bank"].take(10 * RATE))))[0] for _ in range(NOISE_CLIPS)]
    numbers = np.repeat(np.arange(len(bank)), [len(vectors) for vectors in bank])
    rows = BankRows(
        generation=1,
        embedding_space_id=encoder.embedding_space_id,
        vectors=np.concatenate(bank),
        clips=numbers,
        recordings=numbers,
        starts=np.zeros(len(numbers)),
        ends=np.full(len(numbers), encoder.manifest.window.seconds),
        domains=tuple(machine.train[number].domain for number in numbers),
        names=dict.fromkeys(range(len(bank)), ""),
        noise=np.concatenate(known),
    )
    memory = Bank.of(rows, Calibration.fit(rows, CalibrationRows()), exact_limit=10_000)

    def is_background(samples: Samples) -> bool:
        vectors, *_ = encoder.embed(samples)
        return memory.is_background(vectors, memory.score(vectors, 1)[1])

    mixtures = Sound("mixture", "test", kind, 0.0, 0).waveforms(machine, noise, RATE)
    healthy = [is_background(one) for one, clip in zip(mixtures, machine.test, strict=True) if not clip.anomalous]
    alone = {
        role: [is_background(at_level(unit_power(stretches[role].take(10 * RATE)))) for _ in range(TRIALS)]
        for role in ROLES
    }
    return {
        "healthy, in other noise": round(float(np.mean(healthy)), 4),
        "noise alone, of the same recordings": round(float(np.mean(alone["bank"])), 4),
        "noise alone, of others": round(float(np.mean(alone["test"])), 4),
    }


def small_banks(
    enrolled: Sequence[tuple[Domain, Acoustics]],
    size: int,
    clips_by_name: Mapping[str, Sequence[tuple[Acoustics, float]]],
    draws: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Compute the shares with few enrolled source clips, averaged over draws."""
    banks = [envelopes([enrolled[at] for at in rng.choice(len(enrolled), size, replace=False)]) for _ in range(draws)]
    return {
        name: round(float(np.mean([share(bank, clips) for bank in banks])), 4) for name, clips in clips_by_name.items()
    }


def share(bank: Sequence[Envelope], clips: Sequence[tuple[Acoustics, float]]) -> float:
    """Compute the share of clips that have warnings."""
    return round(float(np.mean([bool(closest_differences(bank, found, seconds)) for found, seconds in clips])), 4)


def read(path: Path) -> Samples:
    """Read a clip at RATE."""
    return decode(path.read_bytes(), sample_rate=RATE, limits=LIMITS).samples


def main() -> None:
    """Measure, print a table, write results/acoustics.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=Path, required=True, help="machines in the DCASE Task 2 layout")
    parser.add_argument("--noise", type=Path, required=True, help="with stationary/ and nonstationary/ below it")
    parser.add_argument("--draws", type=int, default=20, help="small banks of each size")
    parser.add_argument("--work", type=Path, default=Path("runs/acoustics"), help="synthetic clips; may be deleted")
    given = parser.parse_args()
    if not given.work.is_dir():
        write_tree(given.work.with_suffix(".part"), plan_tree(test_each=25), seed=1)
        given.work.with_suffix(".part").rename(given.work)
    noise = Noise.read(given.noise, RATE)
    machines = [*read_tree(given.machines), *read_tree(given.work)]
    found = {machine.name: judge(machine, noise, given.draws) for machine in track(machines, description="measuring")}
    encoder = Encoder(shipped_bundle(), Device.CPU)
    for machine in track(machines, description="without the machine"):
        found[machine.name]["not_audible"] = {kind: not_audible(machine, noise, encoder, kind) for kind in KINDS}
    table = Table("healthy clips", *found)
    for name in next(iter(found.values()))["rates"]:
        table.add_row(name, *(f"{one['rates'][name]:.1%}" for one in found.values()))
    for kind in KINDS:
        for name in next(iter(found.values()))["not_audible"][kind]:
            cells = (f"{one['not_audible'][kind][name]:.1%}" for one in found.values())
            table.add_row(f"not audible, {kind}: {name}", *cells)
    Console(width=180).print(table)
    command = f"python benchmarks/acoustics.py --machines MACHINES --noise NOISE --draws {given.draws}"
    print(write("acoustics", command, {"machines": found}))


if __name__ == "__main__":
    main()
