"""Re-exports a bundle's graph with the present exporter: a faster graph, the same embeddings."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper

from offkey import atomic
from service.encoder.bundle import CARD_FILE, GOLDEN_FILE, MANIFEST_FILE, MODEL_FILE, load_manifest
from training.card import card
from training.config import WindowConfig
from training.evaluation.timing import SPEED
from training.graph import (
    ExportError,
    check_parity,
    golden_waveforms,
    open_graph,
    relative_difference,
    write_golden,
    write_graph,
)
from training.run import git_revision
from training.student import Student
from training.weights import read_weights

SAME = 1e-5  # largest accepted relative difference of embeddings
_PROJECTION = ("readout.whitening.mean", "readout.whitening.matrix")  # initializers of every exported graph


def reexport(bundle: Path, version: str, encoder: str | None = None) -> Path:
    """Write `<name>/<version>/` next to a bundle, with a new graph of the same weights; return the folder.

    The embedding space is the same, so stored embeddings stay valid. The measured figures are kept, except those of
    speed.

    Args:
        bundle: folder of a float32 bundle with its encoder's weights.
        version: version of the new bundle: digits.
        encoder: name of the bundle's encoder, as in a config; required for a class in a user's module.

    Raises:
        ExportError: the graph has no projection of this exporter, the embeddings of the new graph differ by more than
            `SAME`, or the version exists.
        BundleError, CheckpointError: the bundle is damaged, or has no weights.
        ConfigError: there is no such encoder.
    """
    manifest = load_manifest(bundle)
    folder = bundle.resolve().parent / version
    if folder.exists():
        raise ExportError(f"{folder} exists. Choose another --version.")
    spec = manifest.window
    window = WindowConfig(seconds=spec.seconds, hop_seconds=spec.hop_seconds, min_seconds=spec.min_seconds)
    student = _student(bundle, manifest.readout.layers, manifest.readout.pooling, encoder)
    with atomic.replacing(folder) as temporary:
        shutil.copytree(bundle, temporary)
        graph = write_graph(student, temporary / MODEL_FILE)
        check_parity(student, temporary / MODEL_FILE, window)
        waveform = {"waveform": golden_waveforms(student.sample_rate, window)}
        before, after = (open_graph(path / MODEL_FILE).run(["embedding"], waveform)[0] for path in (bundle, temporary))
        difference = relative_difference(before, after)
        if not difference <= SAME:
            raise ExportError(
                f"The new graph's embeddings differ from those of {bundle} by {difference:.1e}; {SAME:g} is allowed "
                "in one embedding space. Nothing was written. Export its run under a new name."
            )
        changed = manifest.model_copy(
            update={
                "version": version,
                "model_sha256": graph.sha256,
                "opset": graph.opset,
                "golden": write_golden(student, temporary / GOLDEN_FILE, window),
                "measured": tuple(figure for figure in manifest.measured if not figure.name.endswith(SPEED)),
                "git_revision": git_revision(),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        licensed = any(temporary.glob("LICENSE*"))
        (temporary / MANIFEST_FILE).write_text(changed.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (temporary / CARD_FILE).write_text(card(changed, licensed=licensed), encoding="utf-8")
    return folder


def _student(bundle: Path, layers: tuple[str, ...], pooling: str, encoder: str | None) -> Student:
    found = {
        value.name: numpy_helper.to_array(value)
        for value in onnx.load(str(bundle / MODEL_FILE)).graph.initializer
        if value.name in _PROJECTION
    }
    student = Student(read_weights(bundle, encoder), layers, pooling).eval()
    for name in _PROJECTION:
        buffer = student.get_buffer(name)
        if name not in found or found[name].shape != buffer.shape:
            raise ExportError(f"{bundle} has no projection {name} of shape {tuple(buffer.shape)} in its graph.")
        buffer.copy_(torch.from_numpy(found[name].copy()))
    return student
