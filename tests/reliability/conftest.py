"""Fixtures of the reliability tests."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import as_process
from offkey.client import Client
from offkey.vocabulary import Domain
from service.domain.detector import Detector, clip_score
from service.domain.distance import Near, Vectors
from service.domain.threshold import conformal_threshold


@pytest.fixture
def running() -> Callable[..., AbstractContextManager["tuple[subprocess.Popen[bytes], Client]"]]:
    """`running(data_dir, **changes)` is a service while the block lasts, which is killed at its end."""

    @contextmanager
    def run(data_dir: Path, **changes: Any) -> Iterator[tuple["subprocess.Popen[bytes]", Client]]:
        with as_process(data_dir, **changes) as started, Client(started.url) as client:
            yield started.process, client
            started.process.kill()

    return run


# Container, subtype, sample rate: one of every kind that is accepted.
KINDS = [
    ("WAV", "PCM_16", 16_000), ("WAV", "FLOAT", 16_000), ("WAV", "IMA_ADPCM", 16_000), ("WAVEX", "PCM_24", 48_000),
    ("RF64", "PCM_16", 16_000), ("W64", "PCM_16", 16_000), ("FLAC", "PCM_16", 16_000), ("OGG", "VORBIS", 44_100),
    ("OGG", "OPUS", 48_000), ("MP3", "MPEG_LAYER_III", 32_000), ("AIFF", "PCM_16", 16_000), ("CAF", "PCM_16", 16_000),
]  # fmt: skip


@pytest.fixture(scope="session")
def valid(encode: Callable[..., bytes]) -> dict[str, bytes]:
    """A valid clip of 1.2 s in every format that is accepted, by a name for it."""
    rng = np.random.default_rng(0)
    return {
        f"{container}-{subtype}": encode(
            rng.uniform(-0.5, 0.5, (rate * 6 // 5, 2)).astype(np.float32), rate, container=container, subtype=subtype
        )
        for container, subtype, rate in KINDS
    }


# Clip id, domain, recording (None if the clip is its own recording), and embeddings `(windows, dim)`.
BankClip = tuple[int, Domain, str | None, Vectors]


class Oracle:
    """What a bank must answer, computed from embeddings alone: no store, no cache, no index."""

    def __init__(self, bank: Sequence[BankClip]) -> None:
        """Compare with these clips. Raises OffkeyError (bank too small) where the service must."""
        self._banks: dict[Domain, Vectors] = {}
        self._clips = {}
        recordings, first = {}, dict[str, int]()
        for domain in Domain:
            members = [one for one in bank if one[1] is domain]
            if members:
                windows = [len(vectors) for *_, vectors in members]
                named = [clip if tape is None else first.setdefault(tape, clip) for clip, _, tape, _ in members]
                self._banks[domain] = np.concatenate([vectors for *_, vectors in members])
                self._clips[domain] = np.repeat([clip for clip, *_ in members], windows)
                recordings[domain] = np.repeat(named, windows)
        self._detector = Detector.fit(self._banks, self._clips, recordings)

    def score(self, windows: Vectors) -> float:
        """The anomaly score of a clip of windows `(m, dim)`."""
        return clip_score(self._detector.window_scores(windows, {d: self._near(windows, d) for d in self._banks}))

    def nearest(self, window: Vectors) -> set[int]:
        """The clips that may be named as the nearest of a window `(dim,)`: more than one where they are as near."""
        found = [
            (float(distance), int(self._clips[domain][row]))
            for domain in self._banks
            for distances, rows in [self._near(window[None], domain)]
            for distance, row in zip(distances[0], rows[0], strict=True)
        ]
        return {clip for distance, clip in found if distance <= min(found)[0] + 1e-5}

    def threshold(self, false_alarm_rate: float) -> float:
        """The conformal decision threshold."""
        return conformal_threshold(self._detector.self_scores, false_alarm_rate).value

    def _near(self, windows: Vectors, domain: Domain) -> Near:
        cosines = windows.astype(np.float64) @ self._banks[domain].astype(np.float64).T
        distances = np.clip(1.0 - cosines, 0.0, 2.0).astype(np.float32)
        rows = np.argsort(distances, axis=1, kind="stable")  # all of them
        return Near(np.take_along_axis(distances, rows, axis=1), rows.astype(np.int64))


@pytest.fixture(scope="session")
def oracle() -> type[Oracle]:
    """`oracle(bank)` computes what a bank of `(clip_id, domain, recording, embeddings)` must answer."""
    return Oracle


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(size)` -> a folder on a disk of `size` bytes; needs the right to mount."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)
