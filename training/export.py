"""From a run to a model bundle, checked against PyTorch before anything is written."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

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
    Provenance,
    Readout,
    WindowSpec,
)
from training.build import load_trained
from training.card import DISTANCE, FROZEN_DISTANCE, HELD_OUT, card
from training.config import Config
from training.data.credits import ATTRIBUTION_FILE
from training.graph import ExportError, Graph, check_parity, write_golden, write_graph
from training.int8 import Comparison, Int8, compare, quantize, write_int8_golden
from training.origin import Origin, trace
from training.retention import from_rows
from training.run import Run, git_revision
from training.student import Student
from training.weights import write_weights

_FLOAT_FILE = "float32.onnx"  # of an int8 bundle, while it is made


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
    heard: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write `<models>/<name>/<version>/` from a run's newest checkpoint.

    Args:
        run: what `offkey train` made.
        name: of the bundle, lower-case letters, digits and hyphens.
        version: of the bundle, digits.
        models: folder of bundles.
        measured: JSON file with `figures`, a list of name, value and command, for the card.
        int8: put the encoder's linear layers in 8-bit integers, and measure what that costs.
        weights: put the encoder's weights beside the graph, to start from. An int8 bundle, which is there to be small,
            never has them.
        replace: put the bundle in the place of one that is there.
        heard: told how many clips of the int8 machines are done, and of how many.

    Raises:
        ExportError: the ONNX model does not agree with PyTorch, int8 costs too much or does not suit the encoder, or a
            bundle is already there.
        RunError, ConfigError, CheckpointError, DataError, BundleError: the run is not complete.
    """
    folder = models / name / version
    if folder.exists() and not replace:
        raise ExportError(f"{folder} is already there. Give another --version, or --replace.")
    config = run.config
    student, steps = load_trained(run)
    origin = trace(run)
    figures = _measurements(measured)
    figures += _retention(run, steps, f"offkey export {run.folder} --name {name} --version {version}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
    try:
        temporary.chmod(0o755)
        model, golden_file = temporary / MODEL_FILE, temporary / GOLDEN_FILE
        graph = write_graph(student, model)
        check_parity(student, model, config.window)
        weights_sha256 = None
        if int8:
            graph, comparison = _to_int8(graph, model, student, config, int8, heard)
            golden = write_int8_golden(model, golden_file, student.sample_rate, config.window)
            command = f"offkey export {run.folder} --name {name} --version {version} --int8 {int8.tree}"
            figures += comparison.figures(_window(config), command)
        else:
            golden = write_golden(student, golden_file, config.window)
            weights_sha256 = write_weights(student.encoder, temporary / WEIGHTS_FILE) if weights else None
        parts = _Parts(graph, golden, weights_sha256, "int8" if int8 else "float32", figures)
        manifest = _manifest(name, version, student, config, steps, origin, parts)
        (temporary / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (temporary / CARD_FILE).write_text(card(manifest, licensed=bool(origin.licenses)), encoding="utf-8")
        (temporary / ATTRIBUTION_FILE).write_text(origin.attribution_csv(), encoding="utf-8")
        for path in origin.licenses:
            shutil.copyfile(path, temporary / path.name)
        _put(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _to_int8(
    graph: Graph, model: Path, student: Student, config: Config, asked: Int8, heard: Callable[[int, int], None]
) -> tuple[Graph, Comparison]:
    """Put an int8 graph in the place of `model`, if it costs no more than is accepted."""
    original = model.with_name(_FLOAT_FILE)
    model.rename(original)
    small = quantize(graph, original, model, student.encoder.name)
    graphs = {"float32": original, "int8": model}
    comparison = compare(graphs, asked.tree, _window(config), student.sample_rate, heard)
    original.unlink()
    if not comparison.cost <= asked.cost:
        means = ", ".join(
            f"{title} {comparison.mean('float32', area):.4f} -> {comparison.mean('int8', area):.4f}"
            for area, title in (("auc", "AUC"), ("pauc", "pAUC"))
        )
        raise ExportError(
            f"int8 costs {comparison.cost:.4f} on {asked.tree} ({means}, means over machines), and {asked.cost:g} is "
            "accepted. Nothing was written. Export without --int8, or accept the cost: --int8-cost."
        )
    return small, comparison


@dataclass(frozen=True)
class _Parts:
    """What has been written and found by the time a manifest can be."""

    graph: Graph
    golden: Golden
    weights_sha256: str | None
    precision: Literal["float32", "int8"]
    figures: tuple[Measurement, ...]


def _window(config: Config) -> WindowSpec:
    return WindowSpec(**vars(config.window))


def _manifest(
    name: str, version: str, student: Student, config: Config, steps: int, origin: Origin, parts: _Parts
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
        input=InputSpec(sample_rate=student.sample_rate, channels="mean"),
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
        provenance=Provenance(
            encoder=origin.start,
            encoder_license=encoder.license,
            encoder_attribution=encoder.attribution,
            objective=config.objective.kind if steps else "none, frozen encoder",
            steps=steps,
            data=origin.data,
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
        raise ExportError(f"{path} holds no `figures` with name, value and command: {error}") from error


def _retention(run: Run, step: int, command: str) -> tuple[Measurement, ...]:
    """List how near the student lay to the target on held-out mixtures, at the step that its weights are of."""
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


def _put(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".replaced-"))
    folder.rename(old / "bundle")
    try:
        temporary.rename(folder)
    except BaseException:
        (old / "bundle").rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
