"""The contract between training and service: what a model bundle says of itself.

A bundle is a folder `models/<name>/<version>/` with `model.onnx`, `manifest.json`, `golden.npz` and
`CARD.md`. Training writes the manifest, the service refuses what does not keep its word.
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
    """A model bundle is missing, damaged, or not what its manifest says."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_Part):
    """The waveform that the graph takes, float32 in [-1, 1], shape `(batch, samples)`, both dynamic."""

    name: Literal["waveform"] = "waveform"
    dtype: Literal["float32"] = "float32"
    shape: tuple[Literal["batch"], Literal["samples"]] = ("batch", "samples")
    sample_rate: int = Field(gt=0, description="Hz; the service resamples every clip to it")
    channels: Literal["mean"] = Field("mean", description="how several channels become one")


class WindowSpec(_Part):
    """How a clip is cut before it is embedded.

    A clip no longer than `seconds` is one window of its own length, unpadded. A longer one gives windows
    every `hop_seconds`; the last is moved back to end with the clip, so that every window is full and no
    padding is ever heard.
    """

    seconds: float = Field(gt=0)
    hop_seconds: float = Field(gt=0)
    min_seconds: float = Field(gt=0, description="a shorter clip is refused")
    padding: Literal["none, last window ends with the clip"] = "none, last window ends with the clip"


class OutputSpec(_Part):
    """One output of the graph. `embedding` must be there; without `logmel` nothing is localized."""

    name: Literal["embedding", "frames", "logmel"]
    dims: tuple[str | int, ...] = Field(description="axis names where dynamic, sizes where fixed")
    normalized: bool = Field(description="whether each vector along the last axis has unit norm")
    centers_hz: tuple[float, ...] | None = Field(
        None, description="of logmel: the center of each band; null: not said, and nothing can be localized"
    )

    @model_validator(mode="after")
    def _one_center_per_band(self) -> Self:
        centers = self.centers_hz
        if centers is not None and not (
            len(centers) == self.dims[-1] and len(centers) > 1 and all(a < b for a, b in pairwise((0.0, *centers)))
        ):
            raise ValueError(f"{self.name} has {self.dims[-1]} bands; centers_hz are as many, above 0 and increasing")
        return self


class Readout(_Part):
    """From which layers, by which pooling and projection the embedding is read. It lives inside the graph."""

    layers: tuple[str, ...]
    pooling: str
    projection: str


class DataSource(_Part):
    """Clips that training saw, and the terms they came under."""

    name: str
    clips: int = Field(ge=0)
    license: str
    attribution: str


class Provenance(_Part):
    """What the encoder was made from."""

    encoder: str
    encoder_license: str
    encoder_attribution: str
    objective: str
    steps: int = Field(ge=0)
    data: tuple[DataSource, ...]


class Measurement(_Part):
    """A figure, and the command that makes it."""

    name: str
    value: float
    command: str


class Golden(_Part):
    """Vectors made by the PyTorch module that was exported, or by the graph itself where it is int8; see `GOLDEN_FILE`.

    The file holds `waveform` and, for each output, the array that belongs to it.
    """

    sha256: str
    tolerance: float = Field(gt=0, description="largest difference allowed, relative to the largest value")


class Manifest(_Part):
    """The whole of `manifest.json`."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    version: str = Field(pattern=r"^[0-9]+$")
    model_sha256: str
    weights_sha256: str | None = Field(
        None, description="of encoder.safetensors, from which training can start; the service does not read it"
    )
    opset: int
    precision: Literal["float32", "int8"] = Field(
        "float32",
        description="int8: the encoder's linear layers. Activations are quantized by the range of the whole batch, so "
        "an embedding hangs a little on its batch mates: run windows one at a time",
    )
    input: InputSpec
    window: WindowSpec
    outputs: tuple[OutputSpec, ...]
    metric: Literal["cosine"] = "cosine"
    readout: Readout
    embedding_space_id: str = Field(description="two memory banks are comparable only where it is equal")
    provenance: Provenance
    measured: tuple[Measurement, ...] = ()
    golden: Golden
    git_revision: str
    created: str = Field(description="UTC, ISO 8601")

    @model_validator(mode="after")
    def _one_unit_embedding(self) -> Self:
        names = [spec.name for spec in self.outputs]
        if len(set(names)) != len(names) or "embedding" not in names:
            raise ValueError(f"outputs are {', '.join(names) or 'none'}; there must be one embedding, and none twice")
        embedding = self.output("embedding")
        if not (embedding.normalized and len(embedding.dims) == 2 and isinstance(embedding.dims[1], int)):
            raise ValueError(f"embedding is {embedding.dims}; it must be (batch, a number) and normalized")
        return self

    def output(self, name: str) -> OutputSpec:
        """Return the output called `name`. Raises `KeyError` when the bundle has none."""
        for spec in self.outputs:
            if spec.name == name:
                return spec
        raise KeyError(name)

    @property
    def dim(self) -> int:
        """Length of the embedding."""
        return int(self.output("embedding").dims[-1])


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_manifest(bundle: Path) -> Manifest:
    """Read a bundle's manifest and check that its files are the ones it names.

    Raises:
        BundleError: a file is absent, the manifest does not parse, or a hash differs.
    """
    for name in (MANIFEST_FILE, MODEL_FILE, GOLDEN_FILE):
        if not (bundle / name).is_file():
            raise BundleError(
                f"{bundle} is not a model bundle: it has no {name}. "
                "Point OFFKEY_BUNDLE at a folder that `offkey export` wrote."
            )
    try:
        manifest = Manifest.model_validate_json((bundle / MANIFEST_FILE).read_bytes())
    except ValidationError as error:
        raise BundleError(f"{bundle / MANIFEST_FILE} does not keep schema 1: {error}") from error
    for name, promised in ((MODEL_FILE, manifest.model_sha256), (GOLDEN_FILE, manifest.golden.sha256)):
        found = file_sha256(bundle / name)
        if found != promised:
            raise BundleError(
                f"{bundle / name} is damaged or was replaced: its sha256 is {found}, the manifest says "
                f"{promised}. Restore the bundle or export it again."
            )
    return manifest
