"""Reads the clips of a request: one as the raw body, or one or many as multipart/form-data."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from python_multipart.multipart import DEFAULT_MAX_HEADER_COUNT, DEFAULT_MAX_HEADER_SIZE
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import MACHINE_ID_PATTERN, Domain
from service.audio.budget import Budget
from service.settings import Settings
from service.usecases.clip import Clip

_MAX_NAME = 255  # characters
_MAX_FIELDS = 8
_MAX_FIELD_BYTES = 1_024

# The text fields that a form may have beside its clips. What a route does not take it refuses, rather than let a
# client believe that it counts.
SCORE_FIELDS = ("machine_id",)
ENROLL_FIELDS = (*SCORE_FIELDS, "domain", "recording")
_FIELD_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "machine_id": {"pattern": MACHINE_ID_PATTERN},
    "domain": {"enum": list(Domain)},
    "recording": {"minLength": 1, "maxLength": 255},
}

# What a multipart body may be beside its clips, as `GET /info` reports it. The last two are python-multipart's.
FORM_LIMITS: Mapping[str, int] = {
    "max_clip_name_characters": _MAX_NAME,
    "max_form_fields": _MAX_FIELDS,
    "max_form_field_bytes": _MAX_FIELD_BYTES,
    "max_part_headers": DEFAULT_MAX_HEADER_COUNT,
    "max_part_header_bytes": DEFAULT_MAX_HEADER_SIZE,
}


def request_body(fields: Sequence[str], *, archive: bool = False) -> dict[str, Any]:
    """OpenAPI of a body of clips: audio, a form with these text fields, or a zip archive."""
    audio = {"schema": {"type": "string", "format": "binary"}}
    clips = {"type": "array", "minItems": 1, "items": audio["schema"]}
    texts = {
        name: {"type": "string", "description": "unless given in the query", **_FIELD_SCHEMAS[name]} for name in fields
    }
    form = {
        "type": "object",
        "required": ["clips"],
        "properties": {"clips": clips, **texts},
        "additionalProperties": False,
    }
    content = {"audio/*": audio, "application/octet-stream": audio, "multipart/form-data": {"schema": form}}
    if archive:
        content["application/zip"] = audio
    return {"requestBody": {"required": True, "content": content}}


@dataclass(frozen=True)
class ClipForm:
    """The clips of a request, the text fields that came with them, and what all of it may cost."""

    uploads: Sequence[Clip]
    fields: dict[str, str]
    budget: Budget


async def read_clips(
    request: Request, *, name: str | None, fields: Sequence[str], settings: Settings, budget: Budget
) -> ClipForm:
    """Read the body.

    Args:
        request: the request; its body has not been read.
        name: what to call a clip that comes as the raw body.
        fields: the text fields that a form may have.
        settings: how many clips may come, and within which time.
        budget: what the clips of the request may cost together.

    Raises:
        OffkeyError: the body is empty, not what its type says, cut off, holds too many clips, or comes too
            slowly.
    """
    try:
        async with asyncio.timeout(settings.max_body_seconds):
            if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                return await _read_form(request, fields, settings.max_clips_per_request, budget)
            data = await _read_raw(request)
    except TimeoutError as error:
        raise OffkeyError(
            ErrorKind.SLOW_BODY,
            f"The request body had not arrived after {settings.max_body_seconds:g} s. Send less at once.",
            max_body_seconds=settings.max_body_seconds,
        ) from error
    if not data:
        raise OffkeyError(
            ErrorKind.EMPTY_AUDIO,
            "The request has no body. Send an audio file: curl --data-binary @clip.wav, or -F clips=@clip.wav.",
        )
    return ClipForm([Clip(_clean(name), data, budget)], {}, budget)


async def _read_raw(request: Request) -> bytes:
    """Read the body into one growing buffer: thousands of pieces, joined at the end, leave as much memory in holes."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
    return bytes(data)


class _Parser(MultiPartParser):
    """Starlette's parser, except that it keeps files in memory and refuses a body without its closing boundary.

    The raw body is held in memory as well, under the same limit; a temporary folder would be one more thing
    that can be full.
    """

    spool_max_size = 0  # never to disk
    closed = False

    def on_end(self) -> None:
        """The closing boundary was read."""
        self.closed = True

    async def parse(self) -> FormData:
        """Parse the body."""
        self.stream = self._whole(self.stream)
        return await super().parse()

    async def _whole(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self.closed:
            raise OffkeyError(
                ErrorKind.TRUNCATED_BODY,
                "The multipart body ends before its closing boundary, so something is missing. Send it again.",
            )


async def _read_form(request: Request, fields: Sequence[str], max_clips: int, budget: Budget) -> ClipForm:
    parser = _Parser(
        request.headers,
        request.stream(),
        max_files=max_clips,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise OffkeyError(
                ErrorKind.TOO_MANY_CLIPS,
                f"More than {max_clips} clips came in one request. Send them in several.",
                max_clips_per_request=max_clips,
            ) from error
        raise OffkeyError(ErrorKind.MALFORMED_REQUEST, f"The multipart body cannot be read: {error.message}") from error
    except UnicodeError as error:
        raise OffkeyError(
            ErrorKind.MALFORMED_REQUEST,
            "The multipart body cannot be read in the charset that its Content-Type names. Leave the charset out.",
        ) from error
    try:
        return await _posted(form, fields, budget)
    finally:
        await form.close()


async def _posted(form: FormData, fields: Sequence[str], budget: Budget) -> ClipForm:
    uploads: list[Clip] = []
    texts: dict[str, str] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            uploads.append(Clip(_clean(value.filename) or f"clip-{len(uploads)}", await value.read(), budget))
        elif key in fields:
            if texts.setdefault(key, value) != value:
                raise OffkeyError(ErrorKind.MALFORMED_REQUEST, f"The form says {key} twice, and not the same.")
        else:
            raise OffkeyError(
                ErrorKind.MALFORMED_REQUEST,
                f"The form field {key[:80]!r} is not taken here. Send files as `clips`, and beside them only "
                f"{', '.join(fields)}.",
            )
    if not uploads:
        raise OffkeyError(
            ErrorKind.MALFORMED_REQUEST, "The form holds no file. Send one or more: curl -F clips=@clip.wav."
        )
    return ClipForm(uploads, texts, budget)


def _clean(name: str | None) -> str:
    """The last part of a file name, without characters that could upset a terminal or a page."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    return "".join(char for char in last if char.isprintable())[:_MAX_NAME]
