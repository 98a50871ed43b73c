"""Map error kinds to HTTP status and title, and build problem+json answers (RFC 9457)."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from offkey.errors import ErrorKind

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "urn:offkey:problem:"

PROBLEMS: Mapping[ErrorKind, tuple[int, str]] = {
    ErrorKind.MALFORMED_REQUEST: (422, "The request is malformed"),
    ErrorKind.TOO_MANY_NEIGHBORS: (422, "Too many neighbors are requested"),
    ErrorKind.INVALID_MACHINE_ID: (422, "The machine id is invalid"),
    ErrorKind.UNAUTHENTICATED: (401, "A key is needed"),
    ErrorKind.FORBIDDEN: (403, "The key does not allow this"),
    ErrorKind.RATE_LIMITED: (429, "The key exceeds its rate"),
    ErrorKind.UNKNOWN_KEY: (404, "There is no such key"),
    ErrorKind.UNKNOWN_ROUTE: (404, "There is nothing at this address"),
    ErrorKind.METHOD_NOT_ALLOWED: (405, "This address does not accept this method"),
    ErrorKind.UNKNOWN_MACHINE: (404, "There is no such machine"),
    ErrorKind.UNKNOWN_CLIP: (404, "There is no such clip"),
    ErrorKind.UNKNOWN_JOB: (404, "There is no such job"),
    ErrorKind.UNKNOWN_SNAPSHOT: (404, "There is no such snapshot"),
    ErrorKind.JOB_OVER: (409, "The job is over"),
    ErrorKind.TOO_MANY_SNAPSHOTS: (409, "Too many snapshots are stored"),
    ErrorKind.EMPTY_BANK: (409, "Nothing is enrolled for this machine"),
    ErrorKind.BANK_TOO_SMALL: (409, "Too few clips are enrolled to score"),
    ErrorKind.BANK_FULL: (409, "The memory bank is full"),
    ErrorKind.EMBEDDING_SPACE_MISMATCH: (409, "The bank was made by another model"),
    ErrorKind.AUDIO_NOT_KEPT: (409, "The audio of enrolled clips was not stored"),
    ErrorKind.DOMAIN_CONFLICT: (409, "The clip or its recording is enrolled under the other domain"),
    ErrorKind.IDEMPOTENCY_KEY_REUSED: (422, "The idempotency key was used for another request"),
    ErrorKind.EMPTY_AUDIO: (422, "The clip is empty"),
    ErrorKind.UNDECODABLE_AUDIO: (422, "The clip is not audio that can be decoded"),
    ErrorKind.TRUNCATED_AUDIO: (422, "The clip is truncated"),
    ErrorKind.UNSUPPORTED_SAMPLE_RATE: (422, "The sample rate is not accepted"),
    ErrorKind.TOO_MANY_CHANNELS: (422, "The clip has too many channels"),
    ErrorKind.NON_FINITE_AUDIO: (422, "The clip contains NaN or infinite samples"),
    ErrorKind.OUT_OF_RANGE_AUDIO: (422, "The clip is far over full scale"),
    ErrorKind.SILENT_AUDIO: (422, "The clip is silent"),
    ErrorKind.CLIP_TOO_SHORT: (422, "The clip is too short"),
    ErrorKind.CLIP_TOO_LONG: (422, "The clip is too long"),
    ErrorKind.COSTLY_AUDIO: (422, "The clip takes too long to decode"),
    ErrorKind.SLOW_BODY: (408, "The request body arrived too slowly"),
    ErrorKind.UNREADABLE_ARCHIVE: (422, "The archive cannot be read"),
    ErrorKind.TRUNCATED_BODY: (400, "The request body is truncated"),
    ErrorKind.BODY_TOO_LARGE: (413, "The request body is too large"),
    ErrorKind.TOO_MANY_CLIPS: (413, "Too many clips in one request"),
    ErrorKind.TOO_MUCH_AUDIO: (413, "The request contains too much audio"),
    ErrorKind.OVERLOADED: (503, "The service is at its limit"),
    ErrorKind.DECODER_LOST: (503, "The process that decoded the clip was lost"),
    ErrorKind.STORE_BUSY: (503, "The store is locked by another program"),
    ErrorKind.STORAGE_FULL: (507, "The disk of the store is full"),
    ErrorKind.STORE_UNUSABLE: (503, "The store cannot be used"),
    ErrorKind.MACHINE_DAMAGED: (503, "The stored data of this machine is damaged"),
    ErrorKind.NOT_READY: (503, "The service is not ready"),
    ErrorKind.STOPPING: (503, "The service is shutting down"),
    ErrorKind.INTERNAL: (500, "The service failed"),
}


def problem_response(
    kind: ErrorKind,
    detail: str,
    *,
    instance: str,
    request_id: str,
    values: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build the answer for an error. `values` are added to the standard members."""
    status, title = PROBLEMS[kind]
    body = {
        "type": TYPE_PREFIX + kind.value,
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "request_id": request_id,
        **(values or {}),
    }
    extra = dict(headers or {})
    if kind is ErrorKind.UNAUTHENTICATED:
        extra["WWW-Authenticate"] = 'Bearer realm="offkey"'
    if "retry_after" in body:
        extra["Retry-After"] = str(body["retry_after"])
    return Response(json.dumps(body), status_code=status, media_type=PROBLEM_JSON, headers=extra)
