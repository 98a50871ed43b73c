"""Imports an ONNX file as a model bundle, after checking it in the runtime of the service."""

import re
import shlex
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx

from offkey import atomic
from service.encoder.bundle import (
    CARD_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Golden,
    InputSpec,
    Manifest,
    Measurement,
    OutputSpec,
    Provenance,
    Readout,
    WindowSpec,
    file_sha256,
)
from training.config import WindowConfig
from training.data.credits import ATTRIBUTION_FILE, Credit, credits_text
from training.graph import ExportError, golden_waveforms
from training.importer.card import card
from training.importer.checks import QUIETER_DB, Candidate, Findings, check, embedding_dim
from training.importer.logmel import LogMel
from training.importer.source import Source, read_source
from training.importer.wrap import wrap
from training.run import git_revision

_RATES = (2_000, 192_000)  # Hz
_LONGEST_WINDOW = 60.0  # seconds
_LICENSE_FILE = "LICENSE"


@dataclass(frozen=True)
class ImportRequest:
    """Options of an import.

    Attributes:
        model: ONNX file with input waveform `(batch, samples)` and output embedding `(batch, dim)`.
        name: name of the bundle: lower-case letters, digits and hyphens.
        version: version of the bundle: digits.
        sample_rate: sample rate of the waveform, in Hz.
        license: license of the weights.
        attribution: authors and source of the weights.
        embedding: output with the embedding; None if only one output fits.
        window: windows into which the service cuts clips.
        remove_level: whether waveforms are centered and scaled to an RMS of 0.1 before the model.
        license_file: text of the license, copied into the bundle.
    """

    model: Path
    name: str
    version: str
    sample_rate: int
    license: str
    attribution: str
    window: WindowSpec
    embedding: str | None = None
    remove_level: bool = False
    license_file: Path | None = None

    @property
    def command(self) -> str:
        """Command line of this import."""
        spec = self.window
        options = {
            "--name": self.name,
            "--version": self.version,
            "--sample-rate": str(self.sample_rate),
            "--seconds": f"{spec.seconds:g}",
            "--hop-seconds": f"{spec.hop_seconds:g}",
            "--min-seconds": f"{spec.min_seconds:g}",
            "--license": self.license,
            "--attribution": self.attribution,
        }
        if self.embedding is not None:
            options["--embedding"] = self.embedding
        if self.license_file is not None:
            options["--license-file"] = str(self.license_file)
        words = [word for pair in options.items() for word in pair]
        return shlex.join(
            ["offkey", "bundle", "import", str(self.model), *words, *["--remove-level"] * self.remove_level]
        )


def import_bundle(request: ImportRequest, models: Path) -> tuple[Path, Findings]:
    """Write `<models>/<name>/<version>/`; return the folder and the measured figures.

    Raises:
        ExportError: an option is out of range, the model cannot be wrapped or violates the contract of a bundle, or
            the bundle exists. No partial bundle remains.
    """
    _check_settings(request)
    folder = models / request.name / request.version
    if folder.exists():
        raise ExportError(f"{folder} exists. Choose another --version.")
    source = read_source(request.model, request.embedding)
    logmel = LogMel(request.sample_rate)
    unwrapped = Candidate(request.model, source.waveform)
    dim = embedding_dim(unwrapped, source.embedding, request.sample_rate, request.window)
    del unwrapped  # a large model would be in memory twice
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(folder) as temporary:
        temporary.mkdir()
        onnx.save(wrap(source, dim, logmel, remove_level=request.remove_level), str(temporary / MODEL_FILE))
        candidate = Candidate(temporary / MODEL_FILE, "waveform")
        findings = check(candidate, dim, request.sample_rate, request.window)
        golden = _write_golden(candidate, request, findings, temporary / GOLDEN_FILE)
        manifest = _manifest(request, source, dim, logmel, findings, golden, file_sha256(temporary / MODEL_FILE))
        (temporary / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        text = card(manifest, findings, remove_level=request.remove_level, licensed=request.license_file is not None)
        (temporary / CARD_FILE).write_text(text, encoding="utf-8")
        owed = Credit("encoder", request.model.name, request.license, request.attribution, "")
        (temporary / ATTRIBUTION_FILE).write_text(credits_text([owed]), encoding="utf-8")
        if request.license_file is not None:
            shutil.copyfile(request.license_file, temporary / _LICENSE_FILE)
    return folder, findings


def _check_settings(request: ImportRequest) -> None:
    spec, rate = request.window, request.sample_rate
    frame = LogMel(rate).window / rate if rate > 0 else 0.0
    faults = {
        f"--name is {request.name!r}; it must have lower-case letters, digits and hyphens.": not re.fullmatch(
            r"[a-z0-9][a-z0-9-]*", request.name
        ),
        f"--version is {request.version!r}; it must have digits.": not re.fullmatch(r"[0-9]+", request.version),
        f"--sample-rate is {rate}; it must be from {_RATES[0]} to {_RATES[1]} Hz.": not _RATES[0] <= rate <= _RATES[1],
        f"--min-seconds is {spec.min_seconds:g}; it must be from {frame:g} to --seconds, {spec.seconds:g}.": not (
            frame <= spec.min_seconds <= spec.seconds
        ),
        f"--seconds is {spec.seconds:g}; the maximum is {_LONGEST_WINDOW:g}.": spec.seconds > _LONGEST_WINDOW,
        f"--hop-seconds is {spec.hop_seconds:g}, more than --seconds: audio would be skipped.": (
            spec.hop_seconds > spec.seconds
        ),
        "--license and --attribution must not be empty: license, authors and source of the weights.": not (
            request.license.strip() and request.attribution.strip()
        ),
        f"There is no file {request.license_file} (--license-file).": (
            request.license_file is not None and not request.license_file.is_file()
        ),
    }
    for message, wrong in faults.items():
        if wrong:
            raise ExportError(message)


def _write_golden(candidate: Candidate, request: ImportRequest, findings: Findings, path: Path) -> Golden:
    """Write golden vectors: outputs of the graph itself for synthetic waveforms."""
    spec = request.window
    window = WindowConfig(seconds=spec.seconds, hop_seconds=spec.hop_seconds, min_seconds=spec.min_seconds)
    waveform = golden_waveforms(request.sample_rate, window)
    arrays = {"waveform": waveform, **candidate.run(waveform)}
    # For mypy, the dictionary could contain keyword arguments of the function.
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return Golden(sha256=file_sha256(path), tolerance=findings.tolerance)


def _manifest(
    request: ImportRequest, source: Source, dim: int, logmel: LogMel, findings: Findings, golden: Golden, sha256: str
) -> Manifest:
    figures = {
        f"cosine distance of a clip to itself {QUIETER_DB:g} dB quieter, largest": findings.gain,
        "cosine distance of two synthetic sounds, smallest": findings.sounds,
        f"ms per window of {request.window.seconds:g} s, one CPU thread": findings.milliseconds,
    }
    return Manifest(
        name=request.name,
        version=request.version,
        model_sha256=sha256,
        opset=source.opset,
        input=InputSpec(sample_rate=request.sample_rate, channels="mean"),
        window=request.window,
        outputs=(
            OutputSpec(name="embedding", dims=("batch", dim), normalized=True),
            OutputSpec(
                name="logmel",
                dims=("batch", "frames", len(logmel.centers_hz)),
                normalized=False,
                centers_hz=logmel.centers_hz,
            ),
        ),
        readout=Readout(layers=(), pooling="inside the imported graph", projection="unit norm"),
        embedding_space_id=f"{request.name}/{request.version}-{sha256[:12]}",
        provenance=Provenance(
            encoder=request.model.name,
            encoder_license=request.license,
            encoder_attribution=request.attribution,
            objective="none, imported",
            steps=0,
            data=(),
        ),
        measured=tuple(
            Measurement(name=name, value=float(f"{value:.4g}"), command=request.command)
            for name, value in figures.items()
        ),
        golden=golden,
        git_revision=git_revision(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
