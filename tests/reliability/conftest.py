"""Fixtures of the reliability tests."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import as_process
from offkey.client import Client
from offkey.vocabulary import Domain
from service.domain import nuisance
from service.domain.access import COMMAND_LINE
from service.domain.detector import Detector
from service.domain.distance import Near, Vectors
from service.domain.enrolled import Details, Piece
from service.domain.slices import Slices
from service.domain.threshold import conformal_threshold
from service.encoder.encoder import Encoder
from service.encoder.pieces import embed_pieces
from service.usecases.clip import Clip, EmbeddedClip, embed_clip
from service.usecases.service import Service


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


class Sounds:
    """Clips as the encoder of a service embeds them, without a store. Each clip is embedded once."""

    def __init__(self, service: Service) -> None:
        self._call = service.call(COMMAND_LINE)
        self._scored: dict[tuple[str, float], EmbeddedClip] = {}
        self._pieces: dict[str, tuple[Piece, ...]] = {}

    def scored(self, clip: Clip, longest: float = 0.0) -> EmbeddedClip:
        """The clip as it is scored by a bank whose longest clip lasts `longest` seconds; 0 to enroll it."""
        key = clip.sha256, longest
        if key not in self._scored:
            self._scored[key] = embed_clip(self._call, self._encoder, clip, longest)
        return self._scored[key]

    def pieces(self, clip: Clip) -> tuple[Piece, ...]:
        """The variants and cuts of the clip."""
        if clip.sha256 not in self._pieces:
            whole = self.scored(clip)
            self._pieces[clip.sha256] = embed_pieces(self._encoder, whole.waveform.samples, whole.starts, 0)
        return self._pieces[clip.sha256]

    @property
    def _encoder(self) -> Encoder:
        return self._call.service.encoders.current


@pytest.fixture
def sounds(monkeypatch: pytest.MonkeyPatch) -> type[Sounds]:
    """`sounds(service)` embeds clips. Every clip has two variants, however many clips were enrolled before it."""
    monkeypatch.setattr(nuisance, "_SCHEDULE", ((10**6, 2),))
    return Sounds


# Clip id, domain, recording (None if the clip is its own recording), and the clip.
BankClip = tuple[int, Domain, str | None, Clip]


class Oracle:
    """What a bank must answer, computed from embedded clips alone: no store, no cache, no index."""

    def __init__(self, bank: Sequence[BankClip], sounds: Sounds) -> None:
        """Compare with these clips. Raises OffkeyError (bank too small) where the service must."""
        self._sounds = sounds
        self._banks: dict[Domain, Vectors] = {}
        self._clips = {}
        recordings, details, first = {}, {}, dict[str, int]()
        for domain in Domain:
            members = [one for one in bank if one[1] is domain]
            if members:
                whole = [sounds.scored(clip) for *_, clip in members]
                windows = [len(one.vectors) for one in whole]
                named = {
                    number: number if tape is None else first.setdefault(tape, number) for number, _, tape, _ in members
                }
                self._banks[domain] = np.concatenate([one.vectors for one in whole])
                self._clips[domain] = np.repeat(list(named), windows)
                recordings[domain] = np.repeat(list(named.values()), windows)
                details[domain] = Details.of(
                    np.concatenate([one.starts + one.seconds - one.starts[-1] for one in whole]),
                    [stored(slices) for one in whole for slices in one.slices],
                    [(number, stored_piece(piece)) for number, *_, clip in members for piece in sounds.pieces(clip)],
                    named,
                )
        self._detector = Detector.fit(self._banks, self._clips, recordings, details=details)

    def embedded(self, clip: Clip) -> EmbeddedClip:
        """The clip as the bank must score it: one longer than all enrolled clips has shorter windows."""
        return self._sounds.scored(clip, self._detector.longest)

    def score(self, clip: Clip) -> float:
        """The anomaly score of a clip."""
        own = self.embedded(clip)
        near = {domain: self._near(own.vectors, domain) for domain in self._banks}
        return self._detector.score(own.vectors, near, own.slices, own.seconds).score

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


def stored(cells: Slices) -> Slices:
    """Slices as they are read back: in half precision."""
    return cells.astype(np.float16).astype(np.float32)


def stored_piece(piece: Piece) -> Piece:
    """A piece as it is read back."""
    slices = None if piece.slices is None else stored(piece.slices)
    return replace(piece, vector=stored(piece.vector), slices=slices)


@pytest.fixture(scope="session")
def oracle() -> type[Oracle]:
    """`oracle(bank, sounds)` computes what a bank of `(clip_id, domain, recording, clip)` must answer."""
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
