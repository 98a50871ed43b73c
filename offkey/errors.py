"""Define the error of Offkey: its kind, a sentence for the user, and the values it depends on."""

from enum import StrEnum


class ErrorKind(StrEnum):
    """Reason for refusing a request. `service/http/problems.py` maps each to an HTTP status."""

    MALFORMED_REQUEST = "malformed-request"
    TOO_MANY_NEIGHBORS = "too-many-neighbors"
    INVALID_MACHINE_ID = "invalid-machine-id"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate-limited"
    UNKNOWN_KEY = "unknown-key"
    UNKNOWN_ROUTE = "unknown-route"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    UNKNOWN_MACHINE = "unknown-machine"
    UNKNOWN_CLIP = "unknown-clip"
    UNKNOWN_JOB = "unknown-job"
    UNKNOWN_SNAPSHOT = "unknown-snapshot"
    JOB_OVER = "job-over"
    TOO_MANY_SNAPSHOTS = "too-many-snapshots"
    EMPTY_BANK = "empty-bank"
    BANK_TOO_SMALL = "bank-too-small"
    BANK_FULL = "bank-full"
    EMBEDDING_SPACE_MISMATCH = "embedding-space-mismatch"
    AUDIO_NOT_KEPT = "audio-not-kept"
    DOMAIN_CONFLICT = "domain-conflict"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    EMPTY_AUDIO = "empty-audio"
    UNDECODABLE_AUDIO = "undecodable-audio"
    TRUNCATED_AUDIO = "truncated-audio"
    UNSUPPORTED_SAMPLE_RATE = "unsupported-sample-rate"
    TOO_MANY_CHANNELS = "too-many-channels"
    NON_FINITE_AUDIO = "non-finite-audio"
    OUT_OF_RANGE_AUDIO = "out-of-range-audio"
    SILENT_AUDIO = "silent-audio"
    CLIP_TOO_SHORT = "clip-too-short"
    CLIP_TOO_LONG = "clip-too-long"
    COSTLY_AUDIO = "costly-audio"
    SLOW_BODY = "slow-body"
    UNREADABLE_ARCHIVE = "unreadable-archive"
    TRUNCATED_BODY = "truncated-body"
    BODY_TOO_LARGE = "body-too-large"
    TOO_MANY_CLIPS = "too-many-clips"
    TOO_MUCH_AUDIO = "too-much-audio"
    OVERLOADED = "overloaded"
    DECODER_LOST = "decoder-lost"
    STORE_BUSY = "store-busy"
    STORAGE_FULL = "storage-full"
    STORE_UNUSABLE = "store-unusable"
    MACHINE_DAMAGED = "machine-damaged"
    NOT_READY = "not-ready"
    STOPPING = "stopping"
    INTERNAL = "internal"


# Errors of a single clip. Another clip of the same request may be usable.
ABOUT_CLIP = frozenset(
    {
        ErrorKind.EMPTY_AUDIO,
        ErrorKind.UNDECODABLE_AUDIO,
        ErrorKind.TRUNCATED_AUDIO,
        ErrorKind.UNSUPPORTED_SAMPLE_RATE,
        ErrorKind.TOO_MANY_CHANNELS,
        ErrorKind.NON_FINITE_AUDIO,
        ErrorKind.OUT_OF_RANGE_AUDIO,
        ErrorKind.SILENT_AUDIO,
        ErrorKind.CLIP_TOO_SHORT,
        ErrorKind.CLIP_TOO_LONG,
        ErrorKind.COSTLY_AUDIO,
        ErrorKind.TOO_MUCH_AUDIO,
        ErrorKind.DOMAIN_CONFLICT,
    }
)


class OffkeyError(Exception):
    """A refusal that the user can act on.

    Args:
        kind: the reason, one of `ErrorKind`.
        detail: cause with the value, and recommended action, in one or two sentences.
        **values: offending values and limits, as further fields of the answer for programs.
    """

    def __init__(self, kind: ErrorKind, detail: str, **values: str | int | float) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.values = values
