"""Clips are decoded once and cut on a grid."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

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


def test_no_usable_clip_is_an_error_that_says_why(tmp_path: Path) -> None:
    found = catalog(tmp_path, text=b"not audio at all")
    with pytest.raises(DataError, match=r"the first, text\.wav: The clip is not audio"):
        AudioCache(tmp_path / "cache", 16_000).windows(found.clips, seconds=1.0)
