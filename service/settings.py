"""Every setting of the service, with its unit and default. Set by environment variables `OFFKEY_*`."""

import sysconfig
from enum import StrEnum
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from offkey.vocabulary import MIN_FALSE_ALARM_RATE
from service.domain.backends import DEFAULT_BACKEND, check_backend

MIN_CORESET_WINDOWS = 100
DEFAULT_BUNDLE = Path("offkey-small") / "3"


class Device(StrEnum):
    """Where the encoder runs.

    `cuda` and `tensorrt` refuse to start where they do not work; `auto` takes CUDA or falls back to the CPU.
    """

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


def shipped_bundle() -> Path:
    """The bundle that comes with Offkey: beside the source in a checkout, under the prefix when installed."""
    checkout = Path(__file__).resolve().parent.parent / "models" / DEFAULT_BUNDLE
    if checkout.is_dir():
        return checkout
    return Path(sysconfig.get_path("data")) / "share" / "offkey" / "models" / DEFAULT_BUNDLE


class Settings(BaseSettings):
    """Settings of one service process. `offkey serve` warns of variables OFFKEY_* that are none of them."""

    model_config = SettingsConfigDict(env_prefix="OFFKEY_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one")
    open_to_network: bool = Field(
        False, description="true: listen on any address without a key, so that everybody who reaches it is let in"
    )
    data_dir: Path = Field(Path("data"), description="folder of the store")
    bundle: Path = Field(default_factory=shipped_bundle, description="folder of the model bundle")
    old_bundle: Path | None = Field(
        None, description="folder of the bundle that made the banks which are not yet re-embedded; none: there are none"
    )
    keep_audio: bool = Field(
        True, description="keep the files of enrolled clips in the store, so that banks can move to a new bundle"
    )
    backend: str = Field(DEFAULT_BACKEND, description="how scores are measured; docs/scoring.md lists the backends")
    device: Device = Field(Device.AUTO, description="auto, cpu, cuda or tensorrt")
    workers: int | None = Field(
        None,
        ge=1,
        le=256,
        description="requests that are decoded, embedded and searched at once; a thread and a decoder process each",
    )
    run_threads: int | None = Field(
        None, ge=1, le=256, description="threads of one run of the model on a CPU; measured at the first start"
    )
    queue_limit: int = Field(64, ge=0, description="requests that may wait for a worker before 503")
    false_alarm_rate: float = Field(
        0.05, ge=MIN_FALSE_ALARM_RATE, lt=1, description="requested rate of a machine that sets none of its own"
    )
    max_header_bytes: int = Field(
        32_768, ge=4_096, description="largest head of a request, its first line and headers together, bytes"
    )
    max_header_seconds: float = Field(20.0, gt=0, description="time for the head of a request to arrive, seconds")
    max_body_bytes: int = Field(20 * 2**20, ge=1, description="largest request body, bytes")
    max_body_seconds: float = Field(
        60.0, gt=0, description="time for a request body to arrive, or for an answer to stand unread, seconds"
    )
    max_zip_bytes: int = Field(
        512 * 2**20, ge=1, description="largest zip archive of clips, bytes; it is kept until it is enrolled"
    )
    max_zip_entries: int = Field(10_000, ge=1, description="most entries in a zip archive")
    max_unpacked_bytes: int = Field(
        4 * 2**30, ge=1, description="most bytes that a zip archive may unpack to; no entry to more than a request body"
    )
    max_clips_per_request: int = Field(64, ge=1, description="most clips in one multipart request")
    max_clip_seconds: float = Field(600.0, gt=0, description="longest clip, seconds of decoded audio")
    max_decoded_samples: int = Field(
        64_000_000,
        ge=1,
        description="most audio in one request, samples: frames x channels, at the model's rate where that is more",
    )
    max_decode_cpu_seconds: int = Field(10, ge=1, description="most CPU time to decode one clip, seconds")
    max_decode_seconds: float = Field(30.0, gt=0, description="most time to decode one clip on a busy machine, seconds")
    max_clips_per_machine: int = Field(10_000, ge=2, description="most clips enrolled for one machine")
    max_windows_per_machine: int = Field(
        50_000, ge=2, description="most windows enrolled for one machine; the time to rebuild its bank grows with them"
    )
    coreset_windows: int = Field(
        0, ge=0, description="most windows of a domain that scores compare with, 100 or more; 0 compares with all"
    )
    max_cached_values: int = Field(
        2**27,
        ge=1,
        description="values in the banks kept in memory, 4 bytes each (8 with HNSW); the least used leave",
    )
    half_precision: bool = Field(
        False, description="keep the embeddings of banks in memory in 16 bits: nearly twice the machines"
    )
    max_neighbors: int = Field(32, ge=1, description="most neighbors a score may name per window")
    exact_limit: int = Field(10_000, ge=1, description="windows of a domain up to which search is exact; HNSW above")
    shutdown_seconds: int = Field(
        20, ge=3, description="time from SIGTERM to the end, seconds; running requests get all but the last 2"
    )

    @field_validator("backend")
    @classmethod
    def _known(cls, name: str) -> str:
        return check_backend(name)

    @field_validator("coreset_windows")
    @classmethod
    def _calibrates(cls, windows: int) -> int:
        if 0 < windows < MIN_CORESET_WINDOWS:
            raise ValueError(f"a coreset of {windows} windows calibrates nothing; {MIN_CORESET_WINDOWS} or more, or 0")
        return windows

    def limits(self) -> dict[str, int | float]:
        """The limits that `GET /info` reports, by setting name."""
        return {
            "max_header_bytes": self.max_header_bytes,
            "max_header_seconds": self.max_header_seconds,
            "max_body_bytes": self.max_body_bytes,
            "max_body_seconds": self.max_body_seconds,
            "max_zip_bytes": self.max_zip_bytes,
            "max_zip_entries": self.max_zip_entries,
            "max_unpacked_bytes": self.max_unpacked_bytes,
            "max_clips_per_request": self.max_clips_per_request,
            "max_clip_seconds": self.max_clip_seconds,
            "max_decoded_samples": self.max_decoded_samples,
            "max_decode_cpu_seconds": self.max_decode_cpu_seconds,
            "max_decode_seconds": self.max_decode_seconds,
            "max_clips_per_machine": self.max_clips_per_machine,
            "max_windows_per_machine": self.max_windows_per_machine,
            "coreset_windows": self.coreset_windows,
            "max_cached_values": self.max_cached_values,
            "max_neighbors": self.max_neighbors,
            "queue_limit": self.queue_limit,
            "exact_limit": self.exact_limit,
            "shutdown_seconds": self.shutdown_seconds,
        }
