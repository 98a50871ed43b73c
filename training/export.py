"""Exports a run as a model bundle, after comparing its graph with PyTorch."""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from offkey import atomic
from service.encoder.bundle import (
    CARD_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    Golden,
    InputSpec,
    Manifest,
    Measurement,
    OutputSpec,
    Readout,
    WindowSpec,
)
from service.encoder.bundle import Provenance as ManifestProvenance
from training.card import DISTANCE, FROZEN_DISTANCE, HELD_OUT, card
from training.config import Config
from training.data.credits import ATTRIBUTION_FILE
from training.factory import load_trained
from training.graph import ExportError, Graph, check_parity, write_golden, write_graph
from training.int8 import Comparison, Int8, compare, quantize, write_int8_golden
from training.provenance import Provenance, trace
from training.retention import from_rows
from training.run import Run, git_revision
from training.student import Student
from training.weights import write_weights

_FLOAT_FILE = "float32.onnx"  # temporary graph that an int8 graph is made of


def export_run(
    run: Run,
    name: str,
    version: str,
    models: Path,
    *,
    measured: Path | None = None,
    int8: Int8 | None = None,
    weights: bool = True,
    replace: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write `<models>/<name>/<version>/` from a run's newest checkpoint; return the folder.

    Args:
        run: finished run.
        name: name of the bundle: lower-case letters, digits and hyphens.
        version: version of the bundle: digits.
        models: folder of bundles.
        measured: JSON file with `figures` for the card, each with name, value and command.
        int8: quantization of the encoder's linear layers to 8-bit integers, with its limit of cost; None for float32.
        weights: whether the bundle gets the encoder's weights, from which another student can start. An int8 bundle
            never gets them, because it is meant to be small.
        replace: whether an existing bundle is replaced.
        progress: callback with the number of compared clips and the total.

    Raises:
        ExportError: the ONNX graph differs from PyTorch, int8 costs too much or does not suit the encoder, or the
            bundle exists.
        RunError, ConfigError, CheckpointError, DataError, BundleError: the run is incomplete.
    """
    folder = models / name / version
    if folder.exists() and not replace:
        raise ExportError(f"{folder} exists. Choose another --version, or --replace.")
    config = run.config
    student, steps = load_trained(run)
    provenance = trace(run, steps)
    figures = _measurements(measured)
    figures += _retention(run, steps, f"offkey export {run.folder} --name {name} --version {version}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _replaceable(folder) as move_away, atomic.replacing(folder) as temporary:
        temporary.mkdir()
        model, golden_file = temporary / MODEL_FILE, temporary / GOLDEN_FILE
        graph = write_graph(student, model)
        check_parity(student, model, config.window)
        weights_sha256 = None
        if int8:
            graph, comparison = _to_int8(graph, model, student, config, int8, progress)
            golden = write_int8_golden(model, golden_file, student.sample_rate, config.window)
            command = f"offkey export {run.folder} --name {name} --version {version} --int8 {int8.tree}"
            figures += comparison.figures(_window(config), command)
        else:
            golden = write_golden(student, golden_file, config.window)
            weights_sha256 = write_weights(student.encoder, temporary / WEIGHTS_FILE) if weights else None
        parts = _Parts(graph, golden, weights_sha256, "int8" if int8 else "float32", figures)
        manifest = _manifest(name, version, student, config, provenance, parts)
        (temporary / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (temporary / CARD_FILE).write_text(card(manifest, licensed=bool(provenance.licenses)), encoding="utf-8")
        (temporary / ATTRIBUTION_FILE).write_text(provenance.attribution_csv(), encoding="utf-8")
        for path in provenance.licenses:
            shutil.copyfile(path, temporary / path.name)
        if replace:
            move_away()
    return folder


def _to_int8(
    graph: Graph, model: Path, student: Student, config: Config, int8: Int8, progress: Callable[[int, int], None]
) -> tuple[Graph, Comparison]:
    """Replace the graph at `model` by an int8 graph. Raises `ExportError` if that costs more than `int8.cost`."""
    original = model.with_name(_FLOAT_FILE)
    model.rename(original)
    quantized = quantize(graph, original, model, student.encoder.name)
    graphs = {"float32": original, "int8": model}
    comparison = compare(graphs, int8.tree, _window(config), student.sample_rate, progress)
    original.unlink()
    if not comparison.cost <= int8.cost:
        means = ", ".join(
            f"{title} {comparison.mean('float32', area):.4f} -> {comparison.mean('int8', area):.4f}"
            for area, title in (("auc", "AUC"), ("pauc", "pAUC"))
        )
        raise ExportError(
            f"int8 costs {comparison.cost:.4f} on {int8.tree} ({means}, means over machines), and {int8.cost:g} is "
            "accepted. Nothing was written. Export without --int8, or accept the cost: --int8-cost."
        )
    return quantized, comparison


@dataclass(frozen=True)
class _Parts:
    """Results of the export steps that the manifest needs."""

    graph: Graph
    golden: Golden
    weights_sha256: str | None
    precision: Literal["float32", "int8"]
    figures: tuple[Measurement, ...]


def _window(config: Config) -> WindowSpec:
    return WindowSpec(**vars(config.window))


def _manifest(
    name: str, version: str, student: Student, config: Config, provenance: Provenance, parts: _Parts
) -> Manifest:
    encoder, readout, graph = student.encoder, config.readout, parts.graph
    projection = (
        "none, unit norm"
        if readout.covariance == "none"
        else f"whitened, {readout.covariance} covariance of general audio, epsilon {readout.epsilon:g}, unit norm"
    )
    return Manifest(
        name=name,
        version=version,
        model_sha256=graph.sha256,
        weights_sha256=parts.weights_sha256,
        opset=graph.opset,
        precision=parts.precision,
        input=InputSpec(sample_rate=student.sample_rate, limit_hz=encoder.front_end.limit_hz, channels="mean"),
        window=_window(config),
        outputs=(
            OutputSpec(name="embedding", dims=("batch", student.dim), normalized=True),
            OutputSpec(name="frames", dims=("batch", "time", *student.frames_shape), normalized=False),
            OutputSpec(
                name="logmel",
                dims=("batch", "frames", encoder.front_end.bands),
                normalized=False,
                centers_hz=encoder.front_end.centers_hz,
            ),
        ),
        readout=Readout(
            layers=tuple(student.readout.layers), pooling=student.readout.pooling.name, projection=projection
        ),
        embedding_space_id=f"{name}/{version}-{graph.sha256[:12]}",
        provenance=ManifestProvenance(
            encoder=provenance.start,
            encoder_license=encoder.license,
            encoder_attribution=encoder.attribution,
            objective=provenance.objective,
            steps=provenance.steps,
            weights_from=provenance.weights_from,
            data=provenance.data,
        ),
        measured=parts.figures,
        golden=parts.golden,
        git_revision=git_revision(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _measurements(path: Path | None) -> tuple[Measurement, ...]:
    if path is None:
        return ()
    try:
        found: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["figures"]
        return tuple(Measurement(**figure) for figure in found)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExportError(f"{path} has no `figures` with name, value and command: {error}") from error


def _retention(run: Run, step: int, command: str) -> tuple[Measurement, ...]:
    """List the student's held-out distances to the target at the step of its weights."""
    space = run.config.objective.space
    found = [one for at, one in from_rows(run.retention.rows()) if at == step]
    return tuple(
        Measurement(name=f"{HELD_OUT}, {one.snr_db:g} dB: {what} ({space})", value=value, command=command)
        for one in found
        for what, value in (
            (DISTANCE, one.distance),
            (FROZEN_DISTANCE, one.frozen_distance),
            ("cosine to the target", one.cosine),
            ("the frozen encoder's cosine", one.frozen_cosine),
        )
    )


@contextmanager
def _replaceable(folder: Path) -> Iterator[Callable[[], None]]:
    """Yield a function that moves an existing bundle away; restore the bundle if the block raises, else remove it."""
    old = folder.with_name(f".{secrets.token_hex(8)}")
    try:
        yield partial(_move, folder, old)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _move(folder: Path, target: Path) -> None:
    if folder.exists():
        folder.rename(target)
