"""A tiny random BEATs from its published format through training and export to the running service."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fastapi.testclient import TestClient
from rich.progress import Progress

from service.app import create_app
from service.settings import Settings
from training.config import Config
from training.encoders import Encoder
from training.encoders.beats import BEATs
from training.export import export_run
from training.loop import train


def test_a_beats_student_is_trained_exported_and_served(
    published_form: Callable[[Encoder], dict[str, Any]],
    make_config: Callable[..., Config],
    fan: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    checkpoint = tmp_path / "tiny-beats.pt"
    torch.save(published_form(BEATs.tiny(seed=1)), checkpoint)
    (tmp_path / "LICENSE.beats").write_text("Random weights belong to nobody.\n")
    config = make_config(
        tmp_path / "cache",
        encoder={"name": "beats", "checkpoint": str(checkpoint)},
        # A clip of one patch in time has no deviation, and twelve clips say little of a covariance: without these
        # settings rounding errors would be amplified.
        readout={"layers": ["layer_01", "layer_02"], "pooling": "mean", "epsilon": 0.1},
    )
    with Progress(disable=True) as progress:
        run = train(config, "tiny-beats", tmp_path / "runs", progress)
    bundle = export_run(run, "tiny-beats", "1", tmp_path / "models")

    with TestClient(create_app(Settings(data_dir=tmp_path / "data", bundle=bundle))) as api:
        assert api.get("/info").json()["bundle"] == "tiny-beats/1"
        api.put("/machines/fan-1")
        files = [("clips", (f"{number}.wav", fan(number))) for number in range(3)]
        assert api.post("/enroll", params={"machine_id": "fan-1"}, files=files).status_code == 201
        answer = api.post("/score", params={"machine_id": "fan-1"}, content=fan(0))
        assert answer.json()["clips"][0]["windows"][0]["neighbors"][0]["distance"] < 1e-4
