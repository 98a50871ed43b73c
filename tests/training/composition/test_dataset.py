"""`offkey compose`: a set of clips that training reads, from a few recordings."""

import csv
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.progress import Progress
from typer.testing import CliRunner

from training.cli import app
from training.composition.dataset import Composition, compose
from training.composition.machine import Piece
from training.composition.shaping import SAMPLE_RATE, SAMPLES
from training.config import Config
from training.data.catalog import Catalog, DataError
from training.data.credits import ATTRIBUTION_FILE, read_credits
from training.loop import train
from training.provenance import trace


def silent(what: str, done: int, total: int) -> None:
    assert 0 < done <= total, what


def asked(
    manifest: Path,
    sources: int = 6,
    noises: int = 4,
    seed: int = 0,
    held_out: int = 0,
    splits: tuple[str, ...] = (),
) -> Composition:
    return Composition(manifest, ("source",), sources, noises, held_out, splits, seed, permissive=True)


@pytest.fixture(scope="module")
def composed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compose(asked(clips), tmp_path_factory.mktemp("composed"), silent).manifest


def test_clips_are_whole_sounding_and_never_clipped(composed: Path) -> None:
    catalog = Catalog.from_csv(composed)
    assert [clip.role for clip in catalog.clips] == ["source"] * 6 + ["noise"] * 4
    for clip in catalog.clips:
        samples, rate = soundfile.read(clip.path)
        assert (rate, samples.shape) == (SAMPLE_RATE, (SAMPLES,))
        assert np.abs(samples).max() == pytest.approx(0.9, abs=1e-4)
        assert samples.std() > 0.01


def test_a_clip_hangs_on_the_seed_and_its_number_alone(composed: Path, clips: Path, tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*.flac")
        }

    fewer = compose(asked(clips, sources=3, noises=2), tmp_path / "fewer", silent).manifest.parent
    other = compose(asked(clips, sources=3, noises=2, seed=1), tmp_path / "other", silent).manifest.parent
    known = digests(composed.parent)
    assert len(set(known.values())) == len(known)
    assert all(known[name] == digest for name, digest in digests(fewer).items())
    assert set(digests(other).values()).isdisjoint(known.values())


def test_only_permissive_recordings_are_used_and_all_that_are_used_are_credited(composed: Path, clips: Path) -> None:
    permissive = {clip.name for clip in Catalog.from_csv(clips).clips if clip.permissive}
    credits_ = read_credits(composed.parent / ATTRIBUTION_FILE)
    assert {credit.clip for credit in credits_} <= permissive
    assert len(credits_) > 3
    with composed.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["permissive"] for row in rows} == {"1"}
    assert {row["licence"] for row in rows} <= {"CC0", "synthetic, no recording"}


def test_a_student_trained_on_composed_clips_credits_the_recordings(
    composed: Path, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny_config(
        data={"manifest": str(composed), "noise_labels": [], "noise_roles": ["noise"], "window_seconds": 5.0}
    )
    with Progress(disable=True) as progress:
        run = train(config, "x", tmp_path / "runs", progress)
    assert trace(run, steps=0).credits == read_credits(composed.parent / ATTRIBUTION_FILE)


def test_what_cannot_be_composed_from_is_named(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        compose(asked(clips), tmp_path / "full", silent)

    def manifest_of(name: str, samples: np.ndarray | None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        if samples is None:
            (folder / "a.wav").write_bytes(b"no audio")
        else:
            soundfile.write(folder / "a.wav", samples, SAMPLE_RATE)
        (folder / "manifest.csv").write_text(
            "path,set,role,label,licence,permissive\na.wav,mine,source,fan,CC0,1\n", encoding="utf-8"
        )
        return folder / "manifest.csv"

    with pytest.raises(DataError, match=r"1 clips could not be used; the first is a\.wav: .*not audio"):
        compose(asked(manifest_of("broken", None)), tmp_path / "out", silent)
    with pytest.raises(DataError, match="None of 1 clips is steady"):
        compose(asked(manifest_of("mute", np.zeros(SAMPLE_RATE))), tmp_path / "out", silent)
    click = np.zeros(SAMPLES)
    click[:800] = 0.5
    with pytest.raises(DataError, match="None of 1 clips is steady"):
        compose(asked(manifest_of("click", click)), tmp_path / "out", silent)


def test_held_out_clips_share_no_recording_with_the_others(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips.parent, folder)
    head, *rows = (folder / "manifest.csv").read_text().splitlines()
    folds = [f"{row},fold={1 + number % 5}" for number, row in enumerate(rows)]
    (folder / "manifest.csv").write_text("\n".join([f"{head},extra", *folds]))
    made_of: dict[str, set[str]] = {"train": set(), "held-out": set()}

    def write(path: Path, made: Piece) -> None:
        split = "held-out" if path.stem.startswith("held-out") else "train"
        made_of[split] |= {clip.split for clip in made.clips}
        path.write_bytes(b"")

    monkeypatch.setattr("training.composition.dataset._write", write)
    manifest = compose(
        asked(folder / "manifest.csv", 12, 8, held_out=8, splits=("5",)), tmp_path / "out", silent
    ).manifest
    assert made_of == {"train": {"1", "2", "3", "4"}, "held-out": {"5"}}
    with manifest.open() as file:
        splits = Counter((row["role"], row["split"]) for row in csv.DictReader(file))
    assert splits == {
        ("source", "train"): 12, ("noise", "train"): 8, ("source", "held-out"): 8, ("noise", "held-out"): 8,
    }  # fmt: skip
    for number in (4, 9):
        (folder / f"{number}.wav").write_bytes(b"no audio")
    with pytest.raises(DataError, match=r"Held-out recordings.*--held-out 0"):
        compose(asked(folder / "manifest.csv", held_out=2, splits=("5",)), tmp_path / "mute", silent)
    with pytest.raises(DataError, match=r"0 of 10 recordings would be held out.*The splits are: 1, 2, 3, 4, 5"):
        compose(asked(folder / "manifest.csv", held_out=2, splits=("9",)), tmp_path / "none", silent)


def test_a_damaged_recording_is_named_and_left_out(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips.parent, folder)
    (folder / "0.wav").write_bytes(b"no audio")
    found = CliRunner().invoke(
        app,
        [
            "compose",
            str(folder / "manifest.csv"),
            str(tmp_path / "out"),
            "--sources",
            "2",
            "--noises",
            "2",
            "--held-out",
            "0",
        ],
    )
    assert found.exit_code == 0, found.output
    assert "left out: 0.wav: " in found.stderr


def test_the_command_prints_the_manifest(clips: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    words = ["compose", str(clips), str(tmp_path / "out"), "--sources", "2", "--noises", "2", "--held-out", "0"]
    found = runner.invoke(app, words)
    assert found.exit_code == 0, found.output
    assert Path(found.stdout.splitlines()[-1]) == tmp_path / "out" / "manifest.csv"
    again = runner.invoke(app, words)
    assert again.exit_code != 0
    assert "is not empty" in again.stderr
