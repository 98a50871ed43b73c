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
from training.provenance import trace
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
    made = manifest.provenance
    assert (made.encoder, made.objective, made.steps) == ("tiny", "retain", 3), "the training that its weights had"
    assert made.weights_from == "tiny/1"
    card = (second / "CARD.md").read_text()
    assert "It was made from tiny by 3 steps of the objective `retain`" in card
    assert "Its weights are those of `tiny/1`. Only the projection was fitted for this bundle." in card
    assert "Not recorded: the weights were not trained for this bundle." in card
    assert sum(part.clips for part in manifest.provenance.data) == 10, "the clips of its start, each once"
    with (second / "ATTRIBUTION.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 10
    assert (second / "LICENSE.tiny").is_file(), "the license of the published weights goes on"
    assert "a student can start from it | no" in card
    with pytest.raises(CheckpointError, match=r"No student can start from .*: its graph has no gradients"):
        read_weights(second, "efficientat-16k")
    with pytest.raises(CheckpointError, match="holds efficientat-16k, not beats"):
        trained(make_config(tmp_path / "cache", encoder={**start, "name": "beats"}), tmp_path / "no")


def test_the_weights_of_a_bundle_are_fitted_to_another_front_end_and_come_out_the_same_again(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    first = export_run(trained(make_config(tmp_path / "cache"), tmp_path / "runs"), "tiny", "1", tmp_path / "models")
    start, bundles = first, []
    for version in ("2", "3"):
        encoder = {"name": "efficientat-7k", "checkpoint": str(start)}
        run = trained(make_config(tmp_path / "cache", encoder=encoder, optim={"steps": 0}), tmp_path / version)
        start = export_run(run, "tiny", version, tmp_path / "models")
        bundles.append(start)
    second, third = (load_manifest(bundle) for bundle in bundles)
    assert second.model_sha256 != load_manifest(first).model_sha256
    assert second.model_sha256 == third.model_sha256
    assert second.provenance == third.provenance
    assert second.provenance.weights_from == "tiny/1"
    assert load_manifest(first).input.limit_hz is None
    assert second.input.limit_hz == 7_200
    assert "- Sound above 8000 Hz is not used." in (first / "CARD.md").read_text()
    assert "- Sound above 7200 Hz is not used." in (bundles[0] / "CARD.md").read_text()
    assert read_weights(bundles[0]).name == "efficientat-7k"
    with pytest.raises(CheckpointError, match="holds efficientat-7k, not eat"):
        read_weights(bundles[0], "eat")


def test_training_goes_on_from_a_bundle_under_its_name(make_config: Callable[..., Config], tmp_path: Path) -> None:
    first = export_run(trained(make_config(tmp_path / "cache"), tmp_path / "runs"), "tiny", "1", tmp_path / "models")
    run = trained(make_config(tmp_path / "cache", encoder={"checkpoint": str(first)}), tmp_path / "more")
    made = trace(run, steps=3)
    assert (made.start, made.objective, made.steps, made.weights_from) == ("tiny/1", "retain", 3, None)
