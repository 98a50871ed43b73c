"""Write a request body that is too large for memory to a file. The file is complete and on disk, or absent."""

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
    """Write the body of a request to a new file.

    The time limit grows with the bytes received: `max_body_seconds`, and as much again for every `max_body_bytes`.

    Args:
        request: request; its body has not been read. The route limits the size of the body.
        folder: folder of the new file, created if needed.
        settings: settings of the service.
        slot: slot with the thread that writes the file.

    Raises:
        OffkeyError: the body is empty or arrives too slowly, or the disk is full. No file remains.
        ClientDisconnect: the client left. No file remains.
    """
    path = folder / f"{uuid.uuid4().hex}.zip"
    loop = asyncio.get_running_loop()
    begin, received, digest = loop.time(), 0, hashlib.sha256()
    seconds_per_byte = settings.limits.max_body_seconds / settings.limits.max_body_bytes
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
                deadline.reschedule(begin + settings.limits.max_body_seconds + received * seconds_per_byte)
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
                f"{received} bytes arrived in {loop.time() - begin:.0f} s. Send the archive in parts, or faster.",
                max_body_seconds=settings.limits.max_body_seconds,
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OffkeyError(
                ErrorKind.STORAGE_FULL,
                "The disk has no space for the archive. Free some, or send it in parts.",
            ) from error
        raise
    return ArchiveFile(path, digest.hexdigest())
