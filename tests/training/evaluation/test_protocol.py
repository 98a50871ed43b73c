"""The protocol: exact ratios, no effect of the level, disjoint noise, conditions, seeds, the oracle."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.catalog import DataError
from training.evaluation.embedders import Embedded, oracle
from training.evaluation.noise import KINDS, ROLES, Kind, Noise, Role, generator, unit_power
from training.evaluation.protocol import CLEAN, LEVEL, NOISY, Sound, mix, sounds
from training.evaluation.tree import JudgedMachine, read_tree

RATE = 16_000


@pytest.fixture(scope="module")
def machines(tree: Path) -> list[JudgedMachine]:
    return read_tree(tree)


@pytest.fixture(scope="module")
def recordings(noise: Path) -> Noise:
    return Noise.read(noise, RATE)


@settings(deadline=None, max_examples=40)
@given(st.floats(-10, 30), st.floats(1e-3, 50), st.floats(1e-3, 50), st.integers(0, 2**32 - 1))
def test_the_ratio_is_exact_whatever_the_levels(snr: float, loud: float, soft: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clip = (loud * rng.standard_normal(8_000) + 0.3 * loud).astype(np.float32)
    noise = (soft * np.convolve(rng.standard_normal(8_000), [1, 1, 1], "same") - 0.2 * soft).astype(np.float32)
    mixture = mix(clip, noise, snr)
    assert mixture.dtype == np.float32
    assert np.sqrt(np.mean(mixture.astype(float) ** 2)) == pytest.approx(LEVEL, rel=1e-4)
    parts = np.stack([clip - clip.mean(), noise - noise.mean()], axis=1).astype(float)
    gains = np.linalg.lstsq(parts, mixture.astype(float), rcond=None)[0]  # what of each is in the mixture
    powers = np.mean((parts * gains) ** 2, axis=0)
    assert 10 * np.log10(powers[0] / powers[1]) == pytest.approx(snr, abs=0.1)


def test_level_does_not_leak(machines: list[JudgedMachine], recordings: Noise) -> None:
    for sound in (Sound("clean", "test"), Sound("mixture", "test", "stationary", -10.0, 0)):
        for samples in sound.waveforms(machines[0], recordings, RATE):
            assert np.sqrt(np.mean(samples.astype(float) ** 2)) == pytest.approx(LEVEL, rel=1e-4)


def tones(folder: Path, count: int) -> Path:
    """Noise recordings with different frequencies."""
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            frequency = 500 + 250 * number + 100 * (kind == "nonstationary")
            time = np.arange(2 * RATE) / RATE
            soundfile.write(folder / kind / f"{number}.wav", 0.1 * np.sin(2 * np.pi * frequency * time), RATE)
    return folder


def drawn(noise: Noise, kind: Kind, role: Role, lengths: list[int], seed: int) -> list[np.ndarray]:
    draws = noise.draws(kind, role, generator(seed))
    return [draws.take(length) for length in lengths]


def frequency(samples: np.ndarray) -> int:
    return int(np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples))


def test_bank_and_test_noise_come_from_disjoint_recordings(tmp_path: Path) -> None:
    noise = Noise.read(tones(tmp_path, 5), RATE)
    for kind, extra in (("stationary", 0), ("nonstationary", 100)):
        drawn_sounds = {role: {frequency(part) for part in drawn(noise, kind, role, [8_000] * 20, 0)} for role in ROLES}
        assert drawn_sounds == {
            "bank": {500 + extra, 1_000 + extra, 1_500 + extra},
            "test": {750 + extra, 1_250 + extra},
        }
    hashes = [set(noise.sha256(kind, role)) for kind in KINDS for role in ROLES]
    assert not any(one & other for one, other in itertools.combinations(hashes, 2))


def test_recordings_are_drawn_without_replacement_until_exhausted(tmp_path: Path) -> None:
    noise = Noise.read(tones(tmp_path, 6), RATE)
    for seed in range(10):
        drawn_sounds = [frequency(part) for part in drawn(noise, "stationary", "bank", [4_000] * 9, seed)]
        assert all(sorted(drawn_sounds[start : start + 3]) == [500, 1_000, 1_500] for start in (0, 3, 6))


def test_where_a_stretch_begins_is_random_and_a_short_recording_begins_again(recordings: Noise) -> None:
    found = drawn(recordings, "stationary", "test", [2 * RATE] * 12, 1)
    assert all(len(part) == 2 * RATE for part in found)
    assert len({part.tobytes() for part in found}) >= 6  # the long one of the two is cut at different places
    short = recordings.recordings["stationary", "test"][1].samples
    assert any(np.array_equal(part, np.tile(short, 2)) for part in found)


def test_draws_hang_on_seed_machine_kind_and_role_alone(machines: list[JudgedMachine], recordings: Noise) -> None:
    def noise_of(machine: JudgedMachine, role: str, kind: str, seed: int) -> bytes:
        sound = Sound("noise", role, kind, None, seed)
        return b"".join(part.tobytes() for part in itertools.islice(sound.waveforms(machine, recordings, RATE), 4))

    fan, pump = machines
    base = noise_of(fan, "bank", "stationary", 0)
    assert noise_of(fan, "bank", "stationary", 0) == base
    others = [(pump, "bank", "stationary", 0), (fan, "test", "stationary", 0), (fan, "bank", "stationary", 1)]
    assert all(noise_of(*other) != base for other in others)


def test_a_mixture_has_the_noise_of_the_oracle(machines: list[JudgedMachine], recordings: Noise) -> None:
    fan = machines[0]
    clean, stretch = (
        list(Sound(*part).waveforms(fan, recordings, RATE))
        for part in (("clean", "bank"), ("noise", "bank", "stationary", None, 3))
    )
    for snr in (-10.0, 30.0):
        mixtures = list(Sound("mixture", "bank", "stationary", snr, 3).waveforms(fan, recordings, RATE))
        for one, other, both in zip(clean, stretch, mixtures, strict=True):
            again = mix(one, other, snr)  # equal ingredients, equal at every ratio
            assert np.allclose(both, again, atol=1e-6)


def test_the_oracle_is_the_normalized_mean_of_clean_and_noise_apart() -> None:
    clean = Embedded.join([np.array([[1, 0, 0], [0, 1, 0]], np.float32), np.array([[0, 0, 1]], np.float32)])
    noise = Embedded.join([np.array([[0, 1, 0], [0, 1, 0]], np.float32), np.array([[0.6, 0, 0.8]], np.float32)])
    found = oracle(clean, noise)
    assert np.allclose(found.vectors, [[0.5**0.5, 0.5**0.5, 0], [0, 1, 0], [0.6 / 3.6**0.5, 0, 1.8 / 3.6**0.5]])
    assert found.clips.tolist() == [0, 0, 1]


def test_the_conditions_are_those_of_the_paper_and_both_mismatches() -> None:
    assert [(c.bank, c.test, c.relation) for c in (CLEAN, *NOISY)] == [
        (None, None, "clean"),
        ("stationary", "stationary", "matched"),
        ("nonstationary", "nonstationary", "matched"),
        ("stationary", "nonstationary", "mismatch"),
        ("nonstationary", "stationary", "mismatch"),
    ]
    drawn_sounds = list(sounds((0.0, -5.0), 3, oracle=False))
    assert len(drawn_sounds) == len(set(drawn_sounds)) == 2 * (1 + 2 * 2 * 3)
    assert {sound.part for sound in sounds((0.0,), 3, oracle=True)} == {"noise"}


def test_keys_tell_waveforms_apart(machines: list[JudgedMachine], recordings: Noise) -> None:
    keys = [
        sound.key(machine, recordings)
        for machine in machines
        for alone in (False, True)
        for sound in sounds((0.0, -5.0), 2, oracle=alone)
    ]
    assert len(keys) == len(set(keys))


def test_a_recording_that_is_there_twice_is_left_out_whatever_its_file(tmp_path: Path) -> None:
    folder = tones(tmp_path, 3)
    (folder / "stationary" / "0a.wav").write_bytes((folder / "stationary" / "0.wav").read_bytes())
    samples, _ = soundfile.read(folder / "stationary" / "2.wav", dtype="int16")
    soundfile.write(folder / "nonstationary" / "3.flac", samples, RATE)
    noise = Noise.read(folder, RATE)
    assert noise.left_out == (
        "Noise stationary/0a.wav repeats stationary/0.wav and was left out.",
        "Noise nonstationary/3.flac repeats stationary/2.wav and was left out.",
    )
    assert {key: [one.name for one in own] for key, own in noise.recordings.items()} == {
        (kind, role): names for kind in KINDS for role, names in (("bank", ["0.wav", "2.wav"]), ("test", ["1.wav"]))
    }


def test_pieces_of_one_recording_have_one_role(tmp_path: Path) -> None:
    folder = tones(tmp_path, 5)
    for number, name in enumerate(("a_rec_1_seg_0", "a_rec_1_seg_1", "b_rec_2", "c", "d_rec_1")):
        (folder / "stationary" / f"{number}.wav").rename(folder / "stationary" / f"{name}.wav")
    recordings = Noise.read(folder, RATE).recordings
    assert [one.name for one in recordings["stationary", "bank"]] == [
        "a_rec_1_seg_0.wav", "a_rec_1_seg_1.wav", "d_rec_1.wav", "c.wav",
    ]  # fmt: skip
    assert [one.name for one in recordings["stationary", "test"]] == ["b_rec_2.wav"]


def test_a_silent_stretch_of_a_clips_length_is_refused_before_it_is_drawn(tmp_path: Path) -> None:
    folder = tones(tmp_path, 2)
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal(4 * RATE)
    samples[RATE : 2 * RATE] = 0.25  # an offset is no sound
    soundfile.write(folder / "stationary" / "0.wav", samples, RATE, subtype="FLOAT")
    noise = Noise.read(folder, RATE)
    noise.check(RATE + 1)
    with pytest.raises(DataError, match=r"stationary/0\.wav is silent .* from sample 16000 on"):
        noise.check(RATE)


def test_recordings_that_are_no_use_are_refused(tmp_path: Path, noise: Path) -> None:
    folder = tones(tmp_path / "one", 1)
    with pytest.raises(DataError, match="at least two recordings"):
        Noise.read(folder, RATE)
    twice = tones(tmp_path / "two", 2)
    (twice / "stationary" / "1.wav").write_bytes((twice / "stationary" / "0.wav").read_bytes())
    with pytest.raises(DataError, match="at least two recordings"):  # a copy is no second recording
        Noise.read(twice, RATE)
    (tones(tmp_path / "three", 2) / "stationary" / "1.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"1\.wav"):
        Noise.read(tmp_path / "three", RATE)
    with pytest.raises(DataError, match="silent"):
        unit_power(np.full(100, 0.25, np.float32))
