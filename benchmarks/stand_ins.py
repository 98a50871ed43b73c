"""Make bundles of random weights in common sizes: their output is meaningless, their cost is real."""

from pathlib import Path

import torch

from service.encoder.bundle import CARD_FILE, GOLDEN_FILE, MANIFEST_FILE, MODEL_FILE, OutputSpec, load_manifest
from service.settings import shipped_bundle
from training.config import WindowConfig
from training.encoders import EAT, EfficientAT16k
from training.encoders.base import Encoder
from training.encoders.eat import EATConfig
from training.graph import write_golden, write_graph
from training.student import Student


def _cnn() -> Encoder:
    return EfficientAT16k(width=1.0)


def _vit() -> Encoder:
    return EAT(EATConfig())


# Each reads its last layer, so that all of its layers are run.
STAND_INS = {"cnn-5m": _cnn, "vit-b": _vit}


def stand_in(name: str, folder: Path) -> Path:
    """Write the bundle `name` of `STAND_INS` below a folder and return its place."""
    torch.manual_seed(0)
    encoder = STAND_INS[name]()
    student = Student(encoder, (encoder.layers[-1],), "mean").eval()
    bundle = folder / name / "1"
    bundle.mkdir(parents=True)
    graph = write_graph(student, bundle / MODEL_FILE)
    shipped = load_manifest(shipped_bundle())
    spec = shipped.window
    window = WindowConfig(seconds=spec.seconds, hop_seconds=spec.hop_seconds, min_seconds=spec.min_seconds)
    front_end = encoder.front_end
    manifest = shipped.model_copy(
        update={
            "name": name,
            "version": "1",
            "model_sha256": graph.sha256,
            "weights_sha256": None,
            "opset": graph.opset,
            "outputs": (
                OutputSpec(name="embedding", dims=("batch", student.dim), normalized=True),
                OutputSpec(name="frames", dims=("batch", "time", *student.frames_shape), normalized=False),
                OutputSpec(
                    name="logmel",
                    dims=("batch", "frames", front_end.bands),
                    normalized=False,
                    centers_hz=front_end.centers_hz,
                ),
            ),
            "embedding_space_id": f"{name}/1-{graph.sha256[:12]}",
            "golden": write_golden(student, bundle / GOLDEN_FILE, window),
            "measured": (),
        }
    )
    (bundle / MANIFEST_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    (bundle / CARD_FILE).write_text("Random weights, made by benchmarks/stand_ins.py.\n", encoding="utf-8")
    return bundle
