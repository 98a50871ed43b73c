"""Define the settings of the service, with units and defaults. They are read from environment variables `OFFKEY_*`."""

import sysconfig
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from offkey.vocabulary import MIN_FALSE_ALARM_RATE
from service.domain.backends import DEFAULT_BACKEND, check_backend

MIN_CORESET_WINDOWS = 100
DEFAULT_BUNDLE = Path("offkey-small") / "4"


class Device(StrEnum):
    """Processor that runs the encoder.

    `cuda` and `tensorrt` refuse to start where they do not work. `auto` uses CUDA or falls back to the CPU.
    """

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


def shipped_bundle() -> Path:
    """Return the bundle that ships with Offkey: in a checkout next to the source, otherwise under the prefix."""
    checkout = Path(__file__).resolve().parent.parent / "models" / DEFAULT_BUNDLE
    if checkout.is_dir():
        return checkout
    return Path(sysconfig.get_path("data")) / "share" / "offkey" / "models" / DEFAULT_BUNDLE


class Limits(BaseModel):
    """Limits that rarely need to change. `GET /info` reports them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue_limit: int = Field(64, ge=0, description="requests that may wait for a worker before 503")
    max_header_bytes: int = Field(
        32_768, ge=4_096, description="largest head of a request, its first line and headers together, bytes"
    )
    max_header_seconds: float = Field(20.0, gt=0, description="time for the head of a request to arrive, seconds")
    max_body_bytes: int = Field(20 * 2**20, ge=1, description="largest request body, bytes")
    max_body_seconds: float = Field(
        60.0, gt=0, description="time for a request body to arrive, or for an answer to stay unread, seconds"
    )
    max_zip_bytes: int = Field(
        512 * 2**20, ge=1, description="largest zip archive of clips, bytes; stored until it is enrolled"
    )
    max_zip_entries: int = Field(10_000, ge=1, description="entries in a zip archive")
    max_unpacked_bytes: int = Field(
        4 * 2**30, ge=1, description="unpacked size of a zip archive, bytes; one entry is limited like a request body"
    )
    max_clips_per_request: int = Field(64, ge=1, description="clips in one multipart request")
    max_clip_seconds: float = Field(600.0, gt=0, description="longest clip, seconds of decoded audio")
    max_decoded_samples: int = Field(
        64_000_000,
        ge=1,
        description="decoded audio of one request, samples: frames x channels, or resampled frames if these are more",
    )
    max_decode_cpu_seconds: int = Field(10, ge=1, description="CPU time to decode one clip, seconds")
    max_decode_seconds: float = Field(30.0, gt=0, description="time to decode one clip on a busy machine, seconds")
    max_clips_per_machine: int = Field(10_000, ge=2, description="clips enrolled for one machine")
    max_windows_per_machine: int = Field(
        50_000, ge=2, description="windows enrolled for one machine; the time to load its bank grows with them"
    )
    max_neighbors: int = Field(32, ge=1, description="neighbors that a score may name per window")
    exact_limit: int = Field(10_000, ge=1, description="windows of a domain up to which search is exact; HNSW above")
    run_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="threads of one run of the model on a CPU; 0 measures a good number at the first start",
    )


class Settings(BaseSettings):
    """Settings of one service process. `offkey serve` warns about variables OFFKEY_* that are no settings."""

    model_config = SettingsConfigDict(env_prefix="OFFKEY_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="TCP port to listen on; 0 uses a free one")
    open_to_network: bool = Field(
        False, description="whether everybody on the network is admitted while there is no key"
    )
    data_dir: Path = Field(Path("data"), description="folder of the store")
    bundle: Path = Field(default_factory=shipped_bundle, description="folder of the model bundle")
    old_bundle: Path | None = Field(
        None, description="folder of the bundle of banks that are not yet re-embedded; none if there are none"
    )
    device: Device = Field(Device.AUTO, description="processor of the encoder: auto, cpu, cuda or tensorrt")
    workers: int | None = Field(
        None,
        ge=1,
        le=256,
        description="requests that are decoded, embedded and searched at once; none measures a good number",
    )
    backend: str = Field(
        DEFAULT_BACKEND, description="method that computes scores; docs/reference/scoring.md lists them"
    )
    false_alarm_rate: float = Field(
        0.05, ge=MIN_FALSE_ALARM_RATE, lt=1, description="requested false-alarm rate of machines that set none"
    )
    coreset_windows: int = Field(
        0, ge=0, description="windows of a domain that scores compare with, 100 or more; 0 compares with all"
    )
    keep_audio: bool = Field(
        True, description="whether the files of enrolled clips are stored, so that banks can move to a new bundle"
    )
    bank_cache_mb: int = Field(
        512, ge=1, description="memory for cached banks, MiB; the least recently used are evicted"
    )
    shutdown_seconds: int = Field(
        20, ge=3, description="time from SIGTERM to the end, seconds; running requests get all but the last 2"
    )
    limits: Limits = Field(
        default_factory=Limits,
        description='limits to change, as JSON: {"max_body_bytes": 50000000}; the table below lists them',
    )

    @field_validator("backend")
    @classmethod
    def _check_backend(cls, name: str) -> str:
        return check_backend(name)

    @field_validator("coreset_windows")
    @classmethod
    def _check_coreset(cls, windows: int) -> int:
        if 0 < windows < MIN_CORESET_WINDOWS:
            raise ValueError(f"a coreset of {windows} windows is too small; use {MIN_CORESET_WINDOWS} or more, or 0")
        return windows

    def reported_limits(self) -> dict[str, int | float]:
        """Return the limits that `GET /info` reports, by name."""
        return {
            **self.limits.model_dump(),
            "coreset_windows": self.coreset_windows,
            "bank_cache_mb": self.bank_cache_mb,
            "shutdown_seconds": self.shutdown_seconds,
        }
