"""Writes a request body that is too large for memory into a file, which is whole and on disk or not there."""

import asyncio
import errno
import hashlib
import os
import uuid
from pathlib import Path

from starlette.requests import Request

from offkey.errors import ErrorKind, OffkeyError
from service.jobs.archives import ArchiveFile
from service.settings import Settings
from service.usecases.admission import Slot

_BLOCK = 2**20


async def save_archive(request: Request, folder: Path, settings: Settings, slot: Slot) -> ArchiveFile:
    """Write the body of a request into a new file.

    A body may take as long as one of the largest plain size may, and as much longer as it is larger: what comes
    more slowly than `max_body_bytes` in `max_body_seconds` is given up.

    Args:
        request: whose body has not been read; how large it may be is not looked at here.
        folder: where the file will be; it is made if it is not there.
        settings: of the service.
        slot: slot whose thread writes the file.

    Raises:
        OffkeyError: it comes too slowly, or not at all, or the disk is full. No file is left behind.
        ClientDisconnect: the client left; likewise.
    """
    path = folder / f"{uuid.uuid4().hex}.zip"
    loop = asyncio.get_running_loop()
    begin, received, digest = loop.time(), 0, hashlib.sha256()
    slowest = settings.limits.max_body_seconds / settings.limits.max_body_bytes  # seconds a byte
    block = bytearray()

    def write(last: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            digest.update(block)
            file.write(block)
            block.clear()
            if last:
                file.flush()
                os.fsync(file.fileno())
        if last:
            opened = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)

    try:
        async with asyncio.timeout(settings.limits.max_body_seconds) as deadline:
            async for chunk in request.stream():
                block += chunk
                received += len(chunk)
                deadline.reschedule(begin + settings.limits.max_body_seconds + received * slowest)
                if len(block) >= _BLOCK:
                    await slot.run(write, False)
            if not received:
                raise OffkeyError(ErrorKind.UNREADABLE_ARCHIVE, "The request has no body. Send a zip archive of clips.")
            await slot.run(write, True)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, TimeoutError):
            raise OffkeyError(
                ErrorKind.SLOW_BODY,
                f"{received} bytes had come after {loop.time() - begin:.0f} s. Send the archive in parts, or faster.",
                max_body_seconds=settings.limits.max_body_seconds,
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OffkeyError(
                ErrorKind.STORAGE_FULL, "The disk has no room for the archive. Make room, or send it in parts."
            ) from error
        raise
    return ArchiveFile(path, digest.hexdigest())
