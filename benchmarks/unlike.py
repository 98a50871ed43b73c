"""Measure how often healthy clips raise an alarm when they are sent otherwise than they were enrolled, as served.

    python benchmarks/unlike.py --machines DIR [--rate 0.1]

The train clips of each machine are enrolled under their domains and recordings. The healthy test clips are sent as they
are, cut, at other sample rates, through codecs, with a squeal, and joined to long clips. The faulty test clips are sent
as they are. For each form the table shows the share of alarms, and among the answers that promise a rate.
"""

import argparse
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from machine import write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from serving import offkey, running

from offkey import Client
from offkey.schemas import ThresholdSettings
from service.audio.decode import AudioLimits, Samples, decode
from training.evaluation.tree import JudgedClip, JudgedMachine, read_tree

RATE = 16_000  # Hz
PIECE = re.compile(r"_(?:part|seg)_\d+$")  # what names of pieces of one recording differ in
SQUEAL_SECONDS = 0.2
LONG_SECONDS = 35.0  # six windows of 10 s


class Form(NamedTuple):
    """One way to send a clip."""

    name: str
    file: bytes


def main() -> None:
    """Measure and write results/unlike.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=0.1)
    options = parser.parse_args()
    machines = read_tree(options.machines)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        running(offkey()[0], Path(folder), []) as server,
        Client(server.url) as client,
    ):
        for machine in machines:
            found[machine.name] = measure(client, machine, options.rate)
    show(found)
    result = {"requested_rate": options.rate, "machines": found}
    print(write("unlike", f"python benchmarks/unlike.py --machines MACHINES --rate {options.rate:g}", result))


def measure(client: Client, machine: JudgedMachine, rate: float) -> dict[str, dict[str, Any]]:
    """Enroll a machine and send its test clips. Returns counts by form."""
    client.put_machine(machine.name)
    for clip in track(machine.train, f"{machine.name}: enrolling"):
        client.enroll(machine.name, [clip.path], domain=clip.domain, recording=recording(clip))
    chosen = client.put_threshold(machine.name, ThresholdSettings(false_alarm_rate=rate)).threshold
    promise = None if chosen is None else chosen.promised_false_alarm_rate
    counts: dict[str, dict[str, Any]] = {}
    rng = np.random.default_rng(0)
    for clip in track(machine.test, f"{machine.name}: scoring"):
        sound = decode(clip.path.read_bytes(), sample_rate=RATE, limits=AudioLimits()).samples
        forms = [Form("faulty", wav(sound))] if clip.anomalous else list(forms_of(sound, rng))
        for form in forms:
            count(client, machine.name, form, counts, promise)
    for form in long_forms(machine):
        count(client, machine.name, form, counts, promise)
    return counts


def count(client: Client, machine: str, form: Form, counts: dict[str, dict[str, Any]], promise: float | None) -> None:
    """Score one file and count the fields of the answer."""
    own = counts.setdefault(form.name, {"clips": 0, "alarms": 0, "promised": 0, "alarms_promised": 0, "rate": promise})
    (scored,) = client.score(machine, [form.file]).clips
    own["clips"] += 1
    own["alarms"] += scored.is_anomalous
    if scored.promised_false_alarm_rate is not None:
        own["promised"] += 1
        own["alarms_promised"] += scored.is_anomalous


def recording(clip: JudgedClip) -> str | None:
    """Name the recording that a clip was cut from; None if it is a recording of its own."""
    name = PIECE.sub("", clip.path.stem)
    return None if name == clip.path.stem else re.sub(r"_\d{4}_", "_", name, count=1)


def forms_of(sound: Samples, rng: np.random.Generator) -> Iterator[Form]:
    """Create the forms of one healthy clip."""
    yield Form("as enrolled", wav(sound))
    for seconds in (6.0, 3.0, 1.5, 1.0):
        length = round(seconds * RATE)
        if length < len(sound):
            start = int(rng.integers(len(sound) - length + 1))
            yield Form(f"{seconds:g} s", wav(sound[start : start + length]))
    for rate in (8_000, 22_050, 44_100, 48_000, 96_000):
        yield Form(f"{rate / 1000:g} kHz file", wav(resampled(sound, rate), rate))
    # libsndfile sets a constant bit rate by a level between 0 (highest) and 1 (lowest) of the format's range.
    yield Form("MP3 64 kb/s", mp3(sound, RATE, (160 - 64) / (160 - 8)))
    yield Form("MP3 64 kb/s, 44.1 kHz", mp3(resampled(sound, 44_100), 44_100, (320 - 64) / (320 - 32)))
    yield Form("Opus 24 kb/s", encoded(sound, RATE, "OGG", "OPUS", (256 - 24) / (256 - 6)))
    yield Form("Vorbis", encoded(sound, RATE, "OGG", "VORBIS", 0.6))
    yield Form("ADPCM", encoded(sound, RATE, "WAV", "IMA_ADPCM", None))
    squeal = np.sin(2 * np.pi * rng.uniform(1_500, 5_000) * np.arange(round(SQUEAL_SECONDS * RATE)) / RATE)
    squeal *= np.hanning(len(squeal)) / np.sqrt(np.mean(np.square(squeal * np.hanning(len(squeal)))))
    at = int(rng.integers(len(sound) - len(squeal)))
    for decibels in (0, 10, 20):
        loud = sound.copy()
        loud[at : at + len(squeal)] += (10 ** (decibels / 20) * np.std(sound) * squeal).astype(np.float32)
        loud /= max(1.0, float(np.abs(loud).max()))
        yield Form(f"squeal {decibels:+d} dB", wav(loud))


def long_forms(machine: JudgedMachine) -> Iterator[Form]:
    """Join healthy test clips of one domain, faded over 50 ms, to clips of six windows, each clip used in order."""
    for domain in sorted({clip.domain for clip in machine.test}):
        sounds = [
            decode(clip.path.read_bytes(), sample_rate=RATE, limits=AudioLimits()).samples
            for clip in machine.test
            if clip.domain is domain and not clip.anomalous
        ]
        for first in range(len(sounds)):
            joined = sounds[first]
            following = first
            while len(joined) < LONG_SECONDS * RATE:
                following = (following + 1) % len(sounds)
                joined = faded(joined, sounds[following])
            yield Form("6 windows", wav(joined[: round(LONG_SECONDS * RATE)]))


def faded(first: Samples, second: Samples) -> Samples:
    """Join two sounds of equal level, and fade from one to the other."""
    length = round(0.05 * RATE)
    second = second * np.float32(np.std(first) / max(float(np.std(second)), 1e-9))
    ramp = np.linspace(0, 1, length, dtype=np.float32)
    middle = first[-length:] * np.sqrt(1 - ramp) + second[:length] * np.sqrt(ramp)
    return np.concatenate([first[:-length], middle, second[length:]])


def resampled(sound: Samples, rate: int) -> Samples:
    """Resample to the rate of a file."""
    found: Samples = soxr.resample(sound, RATE, rate, "VHQ")
    return found


def wav(sound: Samples, rate: int = RATE) -> bytes:
    """Encode as a 16-bit WAV file."""
    return encoded(sound, rate, "WAV", "PCM_16", None)


def mp3(sound: Samples, rate: int, level: float) -> bytes:
    """Encode as MP3 of a constant bit rate."""
    file = io.BytesIO()
    options = {"bitrate_mode": "CONSTANT", "compression_level": level}
    soundfile.write(file, np.clip(sound, -1, 1), rate, format="MP3", subtype="MPEG_LAYER_III", **options)
    return file.getvalue()


def encoded(sound: Samples, rate: int, container: str, subtype: str, level: float | None) -> bytes:
    """Encode in a format of libsndfile."""
    file = io.BytesIO()
    options = {} if level is None else {"compression_level": level}
    soundfile.write(file, np.clip(sound, -1, 1), rate, format=container, subtype=subtype, **options)
    return file.getvalue()


def show(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print a table: alarms, and alarms with a promise, by form and machine."""
    names = list(dict.fromkeys(form for own in found.values() for form in own))
    table = Table("sent as", *found)
    for name in names:
        row = []
        for own in found.values():
            one = own.get(name)
            if one is None:
                row.append("")
                continue
            promised = f"{one['alarms_promised']}/{one['promised']}"
            row.append(f"{one['alarms'] / one['clips']:.2f} ({promised})")
        table.add_row(name, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
