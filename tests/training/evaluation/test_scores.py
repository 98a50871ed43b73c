"""Measured scores are served scores, and no score depends on another test clip."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fastapi.testclient import TestClient
from rich.progress import Progress

from offkey.vocabulary import Domain
from service.app import create_app
from service.audio.budget import UNLIMITED
from service.domain.backends import DEFAULT_BACKEND
from service.settings import Device, Settings
from service.usecases.service import Service
from training.config import ConfigError
from training.data.catalog import DataError
from training.evaluation.embedders import BandsEmbedder, BundleEmbedder, Embedded, LogmelEmbedder, check_device
from training.evaluation.embedding import MachineEmbeddings
from training.evaluation.embedding_cache import EmbeddingCache
from training.evaluation.noise import Noise
from training.evaluation.protocol import Sound
from training.evaluation.scores import nearest, scorers, served
from training.evaluation.tree import read_tree

RATE = 16_000


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize("backend", [DEFAULT_BACKEND, "density-ratio"])
def test_served_scores_are_those_of_a_real_service(
    tree: Path, noise: Path, tiny_bundle: Path, tmp_path: Path, backend: str
) -> None:
    recordings, embedder = Noise.read(noise, RATE), BundleEmbedder(tiny_bundle)
    embeddings = MachineEmbeddings(recordings, RATE, EmbeddingCache(tmp_path / "embeddings"))
    settings = Settings(data_dir=tmp_path / "data", bundle=tiny_bundle, workers=1, backend=backend)
    with TestClient(create_app(Service.open(settings))) as api:
        for machine in read_tree(tree):
            sounds = {
                role: Sound("mixture", role, kind, 0.0, 1)
                for role, kind in (("bank", "stationary"), ("test", "nonstationary"))
            }
            waveforms = {role: list(sound.waveforms(machine, recordings, RATE)) for role, sound in sounds.items()}
            assert api.put(f"/machines/{machine.name}").status_code == 201
            for clip, samples in zip(machine.train, waveforms["bank"], strict=True):
                asked = {"machine_id": machine.name, "domain": str(clip.domain)}
                files = [("clips", (clip.path.name, wav(samples)))]
                assert api.post("/enroll", params=asked, files=files).status_code == 201
            files = [
                ("clips", (clip.path.name, wav(s))) for clip, s in zip(machine.test, waveforms["test"], strict=True)
            ]
            answer = api.post("/score", params={"machine_id": machine.name}, files=files)
            assert answer.status_code == 200, answer.text
            with Progress(disable=True) as progress:
                embeddings.embed([(machine, sound, [embedder]) for sound in sounds.values()], 1, progress)
            embedded = {role: embeddings.load(embedder, machine, sound) for role, sound in sounds.items()}
            assert len(embedded["test"].vectors) > 2 * len(machine.test)  # several windows to a clip
            found = served(backend)(embedded["bank"], [clip.domain for clip in machine.train], embedded["test"])
            assert found == pytest.approx([clip["anomaly_score"] for clip in answer.json()["clips"]], abs=1e-5)


@pytest.fixture(scope="module")
def fan(tree: Path, noise: Path, tiny_bundle: Path) -> tuple[Embedded, list[Domain], Embedded]:
    machine, embedder, recordings = read_tree(tree)[0], BundleEmbedder(tiny_bundle), Noise.read(noise, RATE)
    bank, test = (
        Embedded.join(
            [
                embedder.embed(s)
                for s in Sound("mixture", role, "stationary", 0.0, 0).waveforms(machine, recordings, RATE)
            ]
        )
        for role in ("bank", "test")
    )
    return bank, [clip.domain for clip in machine.train], test


@pytest.mark.parametrize("scorer", scorers().values(), ids=scorers())
def test_a_score_does_not_depend_on_other_test_clips(fan: tuple[Embedded, list[Domain], Embedded], scorer) -> None:
    bank, domains, test = fan
    together = scorer(bank, domains, test)
    clips = test.split()
    assert len(together) == len(clips) == 16
    alone = np.concatenate([scorer(bank, domains, Embedded.join([clip])) for clip in clips])
    assert np.array_equal(alone, together)
    order = np.random.default_rng(0).permutation(len(clips))
    assert np.array_equal(scorer(bank, domains, Embedded.join([clips[n] for n in order])), together[order])
    # Nor on what they sound like: with the other clips replaced by one of the bank, a score stays.
    mixed = scorer(bank, domains, Embedded.join([clips[3], *[bank.split()[0]] * 5]))
    assert mixed[0] == together[3]


def test_nearest_is_the_distance_to_the_whole_bank() -> None:
    bank = Embedded(np.array([[1, 0], [0, 1]], np.float32), np.array([0, 1]))
    test = Embedded(np.array([[1, 0], [0.6, 0.8], [-1, 0]], np.float32), np.array([0, 1, 1]))
    found = nearest(bank, [Domain.SOURCE, Domain.TARGET], test)
    assert found == pytest.approx([0.0, 1.0])  # of the second clip's windows the farther one


def test_a_bank_that_cannot_score_is_refused() -> None:
    one = Embedded(np.array([[1, 0]], np.float32), np.array([0]))
    with pytest.raises(DataError, match="at least 2 recordings"):
        served()(one, [Domain.SOURCE], one)


def test_the_log_mel_embedder_is_that_of_the_graph_without_level(tiny_bundle: Path) -> None:
    bundle = BundleEmbedder(tiny_bundle)
    embedder = LogmelEmbedder(bundle)
    clip = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    whole = next(bundle.encoder._runner.run([clip], ["logmel"], UNLIMITED))[0][0].mean(axis=0)
    whole -= whole.mean()
    assert embedder.embed(clip).vectors[0] == pytest.approx(whole / np.linalg.norm(whole), abs=1e-6)
    assert embedder.embed(4 * clip).vectors[0] == pytest.approx(embedder.embed(clip).vectors[0], abs=1e-3)
    assert len(embedder.embed(np.tile(clip, 2)).vectors) == len(bundle.embed(np.tile(clip, 2)).vectors) == 3


def test_the_bands_of_the_frames_are_unit_vectors_apart_and_together(tiny_bundle: Path) -> None:
    bundle = BundleEmbedder(tiny_bundle)
    embedder = BandsEmbedder(bundle)
    clip = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    frames = next(bundle.encoder._runner.run([clip], ["frames"], UNLIMITED))[0][0]  # (time, bands, dim)
    embedded = Embedded.join([embedder.embed(clip)])
    assert np.linalg.norm(embedded.vectors[0]) == pytest.approx(1.0, abs=1e-6)
    parts = embedder.parts(embedded)
    assert len(parts) == embedder.bands == frames.shape[1]
    for band, part in enumerate(parts):
        mean = frames[:, band].mean(axis=0)
        assert part.vectors[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_the_papers_scoring_is_that_of_each_domains_bank_by_hand(fan: tuple[Embedded, list[Domain], Embedded]) -> None:
    """With five recordings in a domain it has a scale of its own, otherwise it borrows; here both have five."""
    rng = np.random.default_rng(0)

    def unit(count: int) -> np.ndarray:
        rows = rng.standard_normal((count, 8)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    bank, test = Embedded(unit(12), np.arange(12)), Embedded(unit(4), np.arange(4))
    domains = [Domain.SOURCE] * 7 + [Domain.TARGET] * 5
    standardized = []
    for part in (bank.vectors[:7], bank.vectors[7:]):
        own = 1 - part @ part.T
        np.fill_diagonal(own, np.inf)
        left_out = own.min(axis=1)
        standardized.append(((1 - test.vectors @ part.T).min(axis=1) - left_out.mean()) / left_out.std())
    found = scorers()["domain-nearest"](bank, domains, test)
    assert found == pytest.approx(np.min(standardized, axis=0), abs=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_and_no_detour(tiny_bundle: Path) -> None:
    check_device(Device.AUTO)
    check_device(Device.CPU)
    assert BundleEmbedder(tiny_bundle, Device.AUTO).key == BundleEmbedder(tiny_bundle).key
    for make in (check_device, lambda device: BundleEmbedder(tiny_bundle, device)):
        with pytest.raises(ConfigError, match=r"^device=cuda, but the model runs on CPU.* set device=cpu\.$"):
            make(Device.CUDA)


def test_embeddings_of_a_gpu_are_kept_apart(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = BundleEmbedder(tiny_bundle)
    monkeypatch.setattr("training.evaluation.embedders.CPU", "another")
    assert cpu.on_cpu
    other = BundleEmbedder(tiny_bundle)  # as if its provider were no CPU
    assert not other.on_cpu
    assert other.key == f"{cpu.key} CPUExecutionProvider"


def test_embeddings_of_different_bundles_have_different_keys(tiny_bundle: Path, bundle: Path) -> None:
    one, other = BundleEmbedder(tiny_bundle), BundleEmbedder(bundle)
    assert len({one.key, other.key, LogmelEmbedder(one).key, LogmelEmbedder(other).key}) == 4
