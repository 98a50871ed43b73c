"""Clips are decoded once and cut on a grid."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from training.data.catalog import Catalog, DataError
from training.data.windows import AudioCache


def catalog(folder: Path, **clips: np.ndarray | bytes) -> Catalog:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "set", "role", "label", "licence", "permissive"])
        for name, content in clips.items():
            path = folder / f"{name}.wav"
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                soundfile.write(path, content, 8_000, subtype="FLOAT")
            writer.writerow([path.name, "synthetic", "source", "hum", "CC0", 1])
    return Catalog.from_csv(folder / "manifest.csv")


def test_windows_on_a_grid_short_clips_repeated_silence_left_out(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal
    half_silent = 0.1 * noise(8_000)
    half_silent[4_000:] = 0
    found = catalog(
        tmp_path, long=0.1 * noise(10_000), short=0.1 * noise(1_600), half=half_silent, text=b"not audio at all"
    )
    audio = AudioCache(tmp_path / "cache", 8_000)
    windows = audio.windows(found.clips, seconds=0.5)
    assert [(window.clip.name, window.start) for window in windows] == [
        ("long.wav", 0),
        ("long.wav", 4_000),
        ("short.wav", 0),
        ("half.wav", 0),
    ]
    assert list(audio.refused) == ["text.wav"]
    batch = audio.batch(windows).numpy()
    assert batch.shape == (4, 4_000)
    assert np.array_equal(batch[2], np.resize(batch[2][:1_600], 4_000))


def test_a_clip_is_decoded_and_resampled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
    found = catalog(tmp_path, tone=tone)
    first = AudioCache(tmp_path / "cache", 16_000)
    windows = first.windows(found.clips, seconds=1.0)
    assert len(first.batch(windows)[0]) == 16_000
    monkeypatch.setattr("training.data.windows.decode", lambda *_, **__: pytest.fail("decoded again"))
    again = AudioCache(tmp_path / "cache", 16_000)
    assert again.windows(found.clips, seconds=1.0) == windows
    assert np.array_equal(again.batch(windows).numpy(), first.batch(windows).numpy())


def test_damaged_cached_samples_are_decoded_again(tmp_path: Path) -> None:
    found = catalog(tmp_path, tone=0.1 * np.sin(np.arange(8_000)))
    first = AudioCache(tmp_path / "cache", 8_000)
    expected = first.batch(first.windows(found.clips, seconds=1.0)).numpy()
    (path,) = first.folder.rglob("*.npy")
    for damaged in (b"", path.read_bytes()[:1_000], b"no array"):
        path.write_bytes(damaged)
        again = AudioCache(tmp_path / "cache", 8_000)
        assert np.array_equal(again.batch(again.windows(found.clips, seconds=1.0)).numpy(), expected)


def test_every_corrupt_clip_is_named_with_its_reason_and_the_others_are_used(tmp_path: Path) -> None:
    tone = 0.1 * np.sin(np.arange(8_000))
    nan = tone.copy()
    nan[7] = np.nan
    found = catalog(tmp_path, good=tone, text=b"not audio", empty=b"", silent=np.zeros(8_000), nan=nan, last=tone)
    (tmp_path / "last.wav").unlink()
    audio = AudioCache(tmp_path / "cache", 8_000)
    assert [window.clip.name for window in audio.windows(found.clips, seconds=1.0)] == ["good.wav"]
    assert list(audio.refused) == ["text.wav", "empty.wav", "silent.wav", "nan.wav", "last.wav"]
    assert "silent" in audio.refused["silent.wav"]
    assert audio.refused["last.wav"] == "The file cannot be read (No such file or directory)."


def test_few_maps_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.windows._OPEN", 2)
    noise = np.random.default_rng(0).standard_normal
    found = catalog(tmp_path, **{f"clip{number}": 0.1 * noise(800) for number in range(5)})
    audio = AudioCache(tmp_path / "cache", 8_000)
    windows = audio.windows(found.clips, seconds=0.1)
    batch = audio.batch([*windows, *windows])
    assert torch.equal(batch[:5], batch[5:])
    assert len(batch.unique(dim=0)) == 5
    assert len(audio._open) == 2


def test_no_usable_clip_is_an_error_that_says_why(tmp_path: Path) -> None:
    found = catalog(tmp_path, text=b"not audio at all")
    with pytest.raises(DataError, match=r"the first is text\.wav: The clip is not audio"):
        AudioCache(tmp_path / "cache", 16_000).windows(found.clips, seconds=1.0)
