"""Read the clips of a request: one as the raw body, or one or many as multipart/form-data."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

from python_multipart.multipart import DEFAULT_MAX_HEADER_COUNT, DEFAULT_MAX_HEADER_SIZE
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import MACHINE_ID_PATTERN, Domain, check_machine_id
from service.audio.budget import UNLIMITED, Budget
from service.domain.access import Caller
from service.settings import Settings
from service.usecases.clip import Clip

_MAX_NAME = 255  # characters
_MAX_FIELDS = 8
_MAX_FIELD_BYTES = 1_024

# Text fields that a form may have in addition to its clips. A route refuses all others: a client whose field is ignored
# would get a misleading answer.
SCORE_FIELDS = ("machine_id",)
ENROLL_FIELDS = (*SCORE_FIELDS, "domain", "recording")
_FIELD_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "machine_id": {"pattern": MACHINE_ID_PATTERN},
    "domain": {"enum": list(Domain)},
    "recording": {"minLength": 1, "maxLength": 255},
}

# Limits of a multipart body apart from its clips, as `GET /info` reports them. The last two are those of
# python-multipart.
FORM_LIMITS: Mapping[str, int] = {
    "max_clip_name_characters": _MAX_NAME,
    "max_form_fields": _MAX_FIELDS,
    "max_form_field_bytes": _MAX_FIELD_BYTES,
    "max_part_headers": DEFAULT_MAX_HEADER_COUNT,
    "max_part_header_bytes": DEFAULT_MAX_HEADER_SIZE,
}


def request_body(fields: Sequence[str], *, archive: bool = False) -> dict[str, Any]:
    """Return the OpenAPI description of a body of clips: audio, a form with these text fields, or a zip archive."""
    audio = {"schema": {"type": "string", "format": "binary"}}
    clips = {"type": "array", "minItems": 1, "items": audio["schema"]}
    text = {"type": "string", "description": "same as the query parameter; send either"}
    texts = {name: {**text, **_FIELD_SCHEMAS[name]} for name in fields}
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
    """Body of a request with clips.

    Attributes:
        clips: the clips.
        fields: text fields by name.
        budget: budget that the clips share.
    """

    clips: Sequence[Clip]
    fields: Mapping[str, str]
    budget: Budget

    @classmethod
    def empty(cls) -> Self:
        """Return the form of a request whose options are all in its query."""
        return cls([], {}, UNLIMITED)

    def machine_id(self, query: str | None, caller: Caller) -> str:
        """Return the machine id from the query or the form.

        Raises:
            OffkeyError: it is absent, invalid, given twice, or not covered by the key of the caller.
        """
        machine_id = self._given("machine_id", query)
        if machine_id is None:
            raise OffkeyError(
                ErrorKind.MALFORMED_REQUEST,
                "No machine is named. Add ?machine_id=... or a form field machine_id.",
            )
        caller.check_machine(check_machine_id(machine_id))
        return machine_id

    def domain(self, query: Domain | None) -> Domain:
        """Return the domain from the query or the form, `source` by default. Raises `OffkeyError`: it is unknown."""
        given = self._given("domain", query)
        if given is None:
            return Domain.SOURCE
        try:
            return Domain(given)
        except ValueError as error:
            raise OffkeyError(
                ErrorKind.MALFORMED_REQUEST, f"The domain {given[:80]!r} is unknown. Use source or target."
            ) from error

    def recording(self, query: str | None) -> str | None:
        """Return the name of the recording from the query or the form. Raises `OffkeyError`: it cannot be used."""
        return named_recording(self._given("recording", query))

    def _given(self, name: str, query: str | None) -> str | None:
        form = self.fields.get(name)
        if query is not None and form is not None and query != form:
            raise OffkeyError(
                ErrorKind.MALFORMED_REQUEST,
                f"The query has {name}={query[:80]!r} and the form has {form[:80]!r}. Send it once.",
            )
        return form if query is None else query


def named_recording(given: str | None) -> str | None:
    """Return the name of a recording unchanged. Raises `OffkeyError`: it is not printable, empty or too long."""
    if given is not None and not (0 < len(given) <= 255 and given.isprintable()):
        raise OffkeyError(
            ErrorKind.MALFORMED_REQUEST,
            f"The recording {given[:80]!r} is not usable as a name. Use 1 to 255 printable characters, or none.",
        )
    return given


async def read_clips(
    request: Request, *, name: str | None, fields: Sequence[str], settings: Settings, budget: Budget
) -> ClipForm:
    """Read the body.

    Args:
        request: the request; its body has not been read.
        name: name of a clip that is sent as the raw body.
        fields: names of the text fields that a form may have.
        settings: limits of the number of clips and of the time.
        budget: budget that the clips of the request share.

    Raises:
        OffkeyError: the body is empty, does not match its content type, is truncated, contains too many clips, or
            arrives too slowly.
    """
    seconds = settings.limits.max_body_seconds
    try:
        async with asyncio.timeout(seconds):
            if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                return await _read_form(request, fields, settings.limits.max_clips_per_request, budget)
            data = await _read_raw(request)
    except TimeoutError as error:
        raise OffkeyError(
            ErrorKind.SLOW_BODY,
            f"The request body had not arrived after {seconds:g} s. Send fewer clips in one request.",
            max_body_seconds=seconds,
        ) from error
    if not data:
        raise OffkeyError(
            ErrorKind.EMPTY_AUDIO,
            "The request has no body. Send an audio file: curl --data-binary @clip.wav, or -F clips=@clip.wav.",
        )
    return ClipForm([Clip(_clean(name), data, budget)], {}, budget)


async def _read_raw(request: Request) -> bytes:
    """Read the body into one growing buffer. Joining thousands of pieces at the end would fragment as much memory."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
    return bytes(data)


class _Parser(MultiPartParser):
    """Parses like Starlette, but keeps files in memory and refuses a body without its closing boundary.

    A raw body is kept in memory as well, with the same limit. A temporary folder could be full.
    """

    spool_max_size = 0  # never to disk
    closed = False

    def on_end(self) -> None:
        """Record that the closing boundary was read."""
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
                "The multipart body ends before its closing boundary, so a part of it is missing. Send it again.",
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
                f"The request has more than {max_clips} clips. Send them in several requests.",
                max_clips_per_request=max_clips,
            ) from error
        raise OffkeyError(ErrorKind.MALFORMED_REQUEST, f"The multipart body cannot be read: {error.message}") from error
    except UnicodeError as error:
        raise OffkeyError(
            ErrorKind.MALFORMED_REQUEST,
            "The multipart body cannot be read in the charset that its Content-Type names. Leave the charset out.",
        ) from error
    try:
        return await _form(form, fields, budget)
    finally:
        await form.close()


async def _form(form: FormData, fields: Sequence[str], budget: Budget) -> ClipForm:
    clips: list[Clip] = []
    texts: dict[str, str] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            clips.append(Clip(_clean(value.filename) or f"clip-{len(clips)}", await value.read(), budget))
        elif key in fields:
            if texts.setdefault(key, value) != value:
                raise OffkeyError(
                    ErrorKind.MALFORMED_REQUEST, f"The form has {key} twice, with different values. Send it once."
                )
        else:
            raise OffkeyError(
                ErrorKind.MALFORMED_REQUEST,
                f"The form field {key[:80]!r} is not accepted here. Send files as `clips`; the only other fields are "
                f"{', '.join(fields)}.",
            )
    if not clips:
        raise OffkeyError(
            ErrorKind.MALFORMED_REQUEST, "The form has no file. Send one or more: curl -F clips=@clip.wav."
        )
    return ClipForm(clips, texts, budget)


def _clean(name: str | None) -> str:
    """Return the last part of a file name, without characters that could control a terminal or a page."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    return "".join(char for char in last if char.isprintable())[:_MAX_NAME]
