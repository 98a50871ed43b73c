"""The bundles of an experiment: given ones, and ones that it trains."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import Progress

from service.encoder.bundle import MANIFEST_FILE, Manifest, file_sha256
from training.config import Config, load_config, to_table
from training.evaluation.config import ExperimentConfig, MethodConfig

_RUNS, _BUNDLES = "runs", "bundles"


def bundles(config: ExperimentConfig, progress: Progress) -> dict[str, Path]:
    """Return the bundle of each method; train and export it if the work folder does not have it.

    Args:
        config: config of the experiment.
        progress: progress display.

    Raises:
        ConfigError, CheckpointError, DataError, BundleError, RunError, ExportError: a method cannot be trained.
    """
    found = {}
    for method in config.methods:
        if method.bundle:
            found[method.name] = Path(method.bundle)
        else:
            found[method.name] = _trained(method, training_config(config, method), Path(config.work), progress)
    return found


class Needs(NamedTuple):
    """Requirements of a method, available before it is trained."""

    sample_rate: int  # sample rate of the waveform, in Hz
    min_seconds: float  # length of the shortest clip


def needs(config: ExperimentConfig, manifests: Mapping[str, Manifest]) -> dict[str, Needs]:
    """Read the requirements of each method, so that errors are raised before anything is trained.

    Args:
        config: config of the experiment.
        manifests: manifests of the given bundles, by method.

    Raises:
        ConfigError, CheckpointError, BundleError: a method cannot be trained.
    """
    from training.factory import build_student

    found = {}
    for method in config.methods:
        if method.bundle:
            manifest = manifests[method.name]
            found[method.name] = Needs(manifest.input.sample_rate, manifest.window.min_seconds)
        else:
            own = training_config(config, method)
            found[method.name] = Needs(build_student(own).sample_rate, own.window.min_seconds)
    return found


def training_config(config: ExperimentConfig, method: MethodConfig) -> Config:
    """Load the config of a method's training run. Raises `ConfigError`."""
    shared = [f"encoder.checkpoint={json.dumps(config.checkpoint)}"] if config.checkpoint else []
    shared += [f"data.manifest={json.dumps(config.manifest)}"] if config.manifest else []
    return load_config(Path(method.config), [*shared, *method.set])


def training_key(config: Config) -> str:
    """Hash everything that a trained method depends on, by content: settings, checkpoints and clips.

    The code is not part of the hash: after a change of the training code, use another work folder.
    """
    from training.data.catalog import fingerprint
    from training.sounds import read_catalog

    table = to_table(config)
    for section, key in (("encoder", "checkpoint"), ("teacher", "checkpoint"), ("teacher", "bundle")):
        table[section][key] = _content(table[section][key])
    clips = read_catalog(config).clips
    contents = {path: file_sha256(path) for path in {clip.path for clip in clips}}
    described: dict[str, Any] = {name: table["data"][name] for name in table["data"]}
    for place in ("manifest", "cache", "collections"):
        del described[place]
    table["data"] = described | {"clips": fingerprint(clips, contents)}
    table["loop"] = {name: table["loop"][name] for name in ("device", "precision")}
    permissive = sorted(clip.name for clip in clips if clip.permissive)
    return hashlib.sha256(json.dumps([table, permissive], sort_keys=True).encode()).hexdigest()


def _content(path: str) -> str:
    """Hash a file, or the files below a folder."""
    if not path or not Path(path).exists():
        return path  # missing: training raises the error
    files = [Path(path)] if Path(path).is_file() else sorted(p for p in Path(path).rglob("*") if p.is_file())
    return hashlib.sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()


def _trained(method: MethodConfig, config: Config, work: Path, progress: Progress) -> Path:
    from training.export import export_run
    from training.loop import resume, train
    from training.run import Run

    folder = work / "methods" / training_key(config)[:16]
    name = re.sub(r"[^a-z0-9]+", "-", method.name.lower()).strip("-") or "method"
    made = sorted((folder / _BUNDLES).glob(f"*/1/{MANIFEST_FILE}"))
    if made:
        return made[0].parent
    # Teacher embeddings are shared by all methods of the experiment.
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=str(work / "cache")))
    runs = [Run(path) for path in sorted((folder / _RUNS).glob("*")) if (path / "run.json").is_file()]
    if not runs:
        run = train(config, name, folder / _RUNS, progress)
    elif runs[-1].checkpoints and runs[-1].latest()[1]["finished"]:
        run = runs[-1]
    else:
        run = resume(runs[-1], runs[-1].config, progress)
    return export_run(run, name, "1", folder / _BUNDLES)
