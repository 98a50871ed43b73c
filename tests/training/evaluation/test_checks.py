"""Clips are read before anything is trained, and what cannot be used or repeats another is found."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.progress import Progress

from training.data.catalog import DataError
from training.evaluation.checks import CheckedClips, check_clips
from training.evaluation.tree import read_tree

RATE = 16_000
NAMES = (
    ("train", "normal", 0),
    ("train", "normal", 1),
    ("test", "normal", 0),
    ("test", "normal", 1),
    ("test", "anomaly", 0),
)


@pytest.fixture
def fan(tmp_path: Path) -> dict[tuple[str, str, int], Path]:
    """A machine of five different clips of 1 s."""
    paths = {}
    for number, (split, condition, place) in enumerate(NAMES):
        path = tmp_path / "fan" / split / f"section_00_source_{split}_{condition}_{place:04d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.1 * np.random.default_rng(number).standard_normal(RATE)
        soundfile.write(path, samples, RATE)
        paths[split, condition, place] = path
    return paths


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., CheckedClips]:
    def run(least: float = 0.5) -> CheckedClips:
        with Progress(disable=True) as progress:
            return check_clips(read_tree(tmp_path), tmp_path, RATE, least, 1, progress)

    return run


def test_clips_that_are_all_different_stay(fan: dict[tuple[str, str, int], Path], check) -> None:
    found = check()
    assert len(found.machines[0].train) == 2
    assert len(found.machines[0].test) == 3
    assert found.notes == ()
    assert found.shortest == RATE


def test_a_clip_in_another_format_is_the_same_clip(fan: dict[tuple[str, str, int], Path], check) -> None:
    samples, _ = soundfile.read(fan["train", "normal", 1], dtype="int16")
    copy = fan["test", "normal", 1]
    copy.unlink()
    soundfile.write(copy.with_suffix(".flac"), samples, RATE)
    found = check()
    assert [clip.path.name for clip in found.machines[0].test] == [
        fan["test", "anomaly", 0].name, fan["test", "normal", 0].name,
    ]  # fmt: skip
    assert found.notes == (
        f"fan: test/{copy.with_suffix('.flac').name} repeats train/{fan['train', 'normal', 1].name} and was left out.",
    )


def test_a_machine_that_has_no_clip_left_is_refused(fan: dict[tuple[str, str, int], Path], check) -> None:
    fan["test", "anomaly", 0].write_bytes(fan["train", "normal", 0].read_bytes())
    with pytest.raises(DataError, match=r"no anomalous test clip.* repeats train/section_00_source_train_normal_0000"):
        check()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (None, "not audio"),
        (np.full(RATE, 0.25), "silent"),
        (0.1 * np.random.default_rng(9).standard_normal(RATE // 4), r"lasts 0\.250 s; .* at least 0\.5 s"),
    ],
    ids=["text", "silence", "short"],
)
def test_a_clip_that_cannot_be_used_is_named(
    samples: np.ndarray | None, message: str, fan: dict[tuple[str, str, int], Path], check
) -> None:
    path = fan["test", "normal", 1]
    if samples is None:
        path.write_bytes(b"RIFF, that is all")
    else:
        soundfile.write(path, samples, RATE)
    with pytest.raises(DataError, match=rf"1 clips of 5 cannot be used\. .*{path.name}: .*{message}"):
        check()


def test_files_of_several_sample_rates_are_noted(fan: dict[tuple[str, str, int], Path], check) -> None:
    soundfile.write(fan["test", "anomaly", 0], 0.1 * np.random.default_rng(9).standard_normal(48_000), 48_000)
    assert check().notes == (
        "fan: its files have different sample rates (16000 Hz in 4, 48000 Hz in 1), which can affect scores.",
    )
