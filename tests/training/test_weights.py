"""A bundle is a start: its weights come back by name, its debts go on."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load_file, save_file

from service.encoder.bundle import load_manifest
from training.config import Config
from training.encoders import ENCODERS, CheckpointError
from training.export import export_run
from training.loop import train
from training.run import Run
from training.weights import read_weights, write_weights


def trained(config: Config, folder: Path) -> Run:
    with Progress(disable=True) as progress:
        return train(config, "tiny", folder, progress)


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_of_every_encoder_come_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ENCODERS[name].tiny(seed=3)
    digest = write_weights(encoder, tmp_path / "encoder.safetensors")

    (tmp_path / "any").write_bytes(b"")  # readable like the other files of a bundle
    assert (tmp_path / "encoder.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode

    class Stored:
        weights_sha256 = digest

    monkeypatch.setattr("training.weights.load_manifest", lambda _: Stored)
    again = read_weights(tmp_path, name)
    assert not again.training
    assert again.layers == encoder.layers
    before, after = encoder.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    other = next(other for other in ENCODERS if other != name)
    with pytest.raises(CheckpointError, match=f"holds {name}, not {other}"):
        read_weights(tmp_path, other)
    state = load_file(tmp_path / "encoder.safetensors")
    state["stranger"] = state.pop(min(state))
    save_file(state, tmp_path / "encoder.safetensors", {"encoder": name, "sizes": "{}"})
    with pytest.raises(CheckpointError, match="damaged or was replaced"):
        read_weights(tmp_path, name)


def test_a_bundle_is_a_start(make_config: Callable[..., Config], clips: Path, tmp_path: Path) -> None:
    first = trained(make_config(tmp_path / "cache"), tmp_path / "runs")
    bundle = export_run(first, "tiny", "1", tmp_path / "models")
    listing = clips.parent / "two.csv"
    listing.write_text("".join(clips.read_text().splitlines(keepends=True)[i] for i in (0, 1, 2, 3, 4)))
    start = {"checkpoint": str(bundle)}
    still = trained(
        make_config(tmp_path / "cache", encoder=start, data={"manifest": str(listing)}, optim={"steps": 0}),
        tmp_path / "still",
    )
    before, now = (run.latest()[0] for run in (first, still))
    names = [name for name in before if name.startswith("student.encoder.")]
    assert names
    assert all(torch.equal(before[name], now[name]) for name in names)

    second = export_run(still, "second", "1", tmp_path / "models", weights=False)
    manifest = load_manifest(second)
    assert manifest.provenance.encoder == "tiny/1"
    assert sum(part.clips for part in manifest.provenance.data) == 10, "the clips of its start, each once"
    with (second / "ATTRIBUTION.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 10
    assert (second / "LICENSE.tiny").is_file(), "the license of the published weights goes on"
    assert "a student can start from it | no" in (second / "CARD.md").read_text()
    with pytest.raises(CheckpointError, match=r"No student can start from .*: its graph has no gradients"):
        read_weights(second, "efficientat-16k")
    with pytest.raises(CheckpointError, match="holds efficientat-16k, not beats"):
        trained(make_config(tmp_path / "cache", encoder={**start, "name": "beats"}), tmp_path / "no")
