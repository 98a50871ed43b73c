"""Model bundles: the manifest is the contract between training and service.

A bundle is a folder `models/<name>/<version>/` with `model.onnx`, `manifest.json`, `golden.npz` and `CARD.md`. Training
writes the manifest. The service refuses a bundle that does not match it.
"""

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
GOLDEN_FILE = "golden.npz"
CARD_FILE = "CARD.md"
WEIGHTS_FILE = "encoder.safetensors"


class BundleError(Exception):
    """A model bundle is missing or damaged, or does not match its manifest."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_Part):
    """Input waveform of the graph: float32 in [-1, 1], shape `(batch, samples)`, both dynamic."""

    name: Literal["waveform"] = "waveform"
    dtype: Literal["float32"] = "float32"
    shape: tuple[Literal["batch"], Literal["samples"]] = ("batch", "samples")
    sample_rate: int = Field(gt=0, description="sample rate in Hz; the service resamples every clip to it")
    limit_hz: float | None = Field(
        None, gt=0, description="frequency in Hz above which the graph ignores sound; null if it ignores none"
    )
    channels: Literal["mean"] = Field("mean", description="downmix of several channels to one")

    @property
    def highest_hz(self) -> float:
        """Return the highest frequency that an embedding depends on, in Hz."""
        return self.limit_hz or self.sample_rate / 2


class WindowSpec(_Part):
    """Windows that a clip is cut into before it is embedded.

    A clip no longer than `seconds` is one window of its own length, without padding. A longer clip has a window every
    `hop_seconds`. The last window is moved back to end with the clip, so every window is full and nothing is padded.
    """

    seconds: float = Field(gt=0)
    hop_seconds: float = Field(gt=0)
    min_seconds: float = Field(gt=0, description="shortest clip; a shorter one is refused")
    padding: Literal["none, last window ends with the clip"] = "none, last window ends with the clip"


class OutputSpec(_Part):
    """Output of the graph. `embedding` is required. Localization requires `logmel`."""

    name: Literal["embedding", "frames", "logmel"]
    dims: tuple[str | int, ...] = Field(description="axis names if dynamic, sizes if fixed")
    normalized: bool = Field(description="whether each vector along the last axis has unit norm")
    centers_hz: tuple[float, ...] | None = Field(
        None, description="center of each band of logmel; null if unknown, and nothing can be localized"
    )

    @model_validator(mode="after")
    def _one_center_per_band(self) -> Self:
        centers = self.centers_hz
        if centers is not None and not (
            len(centers) == self.dims[-1] and len(centers) > 1 and all(a < b for a, b in pairwise((0.0, *centers)))
        ):
            raise ValueError(
                f"{self.name} has {self.dims[-1]} bands; centers_hz must be as many, increasing from above 0"
            )
        return self


class Readout(_Part):
    """Layers, pooling and projection of the embedding. They are part of the graph."""

    layers: tuple[str, ...]
    pooling: str
    projection: str


class DataSource(_Part):
    """Training clips and their license."""

    name: str
    clips: int = Field(ge=0)
    license: str
    attribution: str


class Provenance(_Part):
    """Origin of the encoder."""

    encoder: str
    encoder_license: str
    encoder_attribution: str
    objective: str
    steps: int = Field(ge=0)
    weights_from: str | None = Field(
        None, description="bundle that first had these weights, if only the projection was fitted for this one"
    )
    data: tuple[DataSource, ...]


class Measurement(_Part):
    """Figure, and the command that produces it."""

    name: str
    value: float
    command: str


class Golden(_Part):
    """Golden vectors: outputs of the exported PyTorch module, or of the graph itself if it is int8.

    `GOLDEN_FILE` has an array `waveform`, and one array for each output.
    """

    sha256: str
    tolerance: float = Field(gt=0, description="largest allowed difference, relative to the largest value")


class Manifest(_Part):
    """Content of `manifest.json`."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: str = Field(pattern=r"^[0-9]+$")
    model_sha256: str
    weights_sha256: str | None = Field(
        None, description="SHA-256 of encoder.safetensors, which training can start from; the service does not read it"
    )
    opset: int
    precision: Literal["float32", "int8"] = Field(
        "float32",
        description="int8 quantizes the encoder's linear layers. Activations are scaled by the range of the whole "
        "batch, so an embedding depends slightly on the other windows of its batch; run windows one at a time",
    )
    input: InputSpec
    window: WindowSpec
    outputs: tuple[OutputSpec, ...]
    metric: Literal["cosine"] = "cosine"
    readout: Readout
    embedding_space_id: str = Field(description="embedding space; memory banks are comparable only if it is equal")
    provenance: Provenance
    measured: tuple[Measurement, ...] = ()
    golden: Golden
    git_revision: str
    created: str = Field(description="UTC, ISO 8601")

    @model_validator(mode="after")
    def _one_unit_embedding(self) -> Self:
        names = [spec.name for spec in self.outputs]
        if len(set(names)) != len(names) or "embedding" not in names:
            raise ValueError(f"outputs are {', '.join(names) or 'none'}; embedding is required, names must be unique")
        embedding = self.output("embedding")
        if not (embedding.normalized and len(embedding.dims) == 2 and isinstance(embedding.dims[1], int)):
            raise ValueError(f"embedding is {embedding.dims}; it must be (batch, a number) and normalized")
        return self

    def output(self, name: str) -> OutputSpec:
        """Return the output called `name`. Raises `KeyError` if the bundle has none."""
        for spec in self.outputs:
            if spec.name == name:
                return spec
        raise KeyError(name)

    @property
    def dim(self) -> int:
        """Return the length of an embedding."""
        return int(self.output("embedding").dims[-1])


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_manifest(bundle: Path) -> Manifest:
    """Read a bundle's manifest and check the hashes of its files.

    Raises:
        BundleError: a file is absent, the manifest is invalid, or a hash differs.
    """
    for name in (MANIFEST_FILE, MODEL_FILE, GOLDEN_FILE):
        if not (bundle / name).is_file():
            raise BundleError(
                f"{bundle} is not a model bundle: it has no {name}. "
                "Set OFFKEY_BUNDLE to a folder that `offkey export` wrote."
            )
    try:
        manifest = Manifest.model_validate_json((bundle / MANIFEST_FILE).read_bytes())
    except ValidationError as error:
        raise BundleError(f"{bundle / MANIFEST_FILE} does not match schema 1: {error}") from error
    for name, declared in ((MODEL_FILE, manifest.model_sha256), (GOLDEN_FILE, manifest.golden.sha256)):
        found = file_sha256(bundle / name)
        if found != declared:
            raise BundleError(
                f"{bundle / name} is damaged or was replaced: its sha256 is {found}, but the manifest has "
                f"{declared}. Restore the bundle or export it again."
            )
    return manifest
