"""Reads a clip, or one channel of it."""

import io
from pathlib import Path

import soundfile

from service.audio.decode import AudioLimits

_BLOCK_FRAMES = 65_536


class UnreadableError(Exception):
    """A clip cannot be read."""


def read_clip(path: Path, channel: int | None, limits: AudioLimits) -> bytes:
    """Read a whole file, or one channel of it as a WAV file, block by block up to the limit of a clip.

    Args:
        path: path of the clip.
        channel: channel, counted from 0; None for the whole file.
        limits: limits of a clip.

    Raises:
        UnreadableError: the file cannot be read, is not audio, or has no such channel.
    """
    if channel is None:
        try:
            return path.read_bytes()
        except OSError as error:
            raise UnreadableError(f"The file cannot be read ({error.strerror}).") from error
    wave = io.BytesIO()
    try:
        with soundfile.SoundFile(path) as file:
            if channel >= file.channels:
                raise UnreadableError(f"The file has no channel {channel}: it has {file.channels}, counted from 0.")
            left = (
                int(limits.max_seconds * file.samplerate) + 1
            )  # one more, so that the decoder detects a clip that is too long
            with soundfile.SoundFile(wave, "w", file.samplerate, 1, format="W64", subtype="FLOAT") as mono:
                while left > 0 and len(block := file.read(min(left, _BLOCK_FRAMES), "float32", always_2d=True)):
                    mono.write(block[:, channel])
                    left -= len(block)
    except (soundfile.SoundFileError, ValueError) as error:
        raise UnreadableError(f"The clip is not audio that can be decoded ({error}).") from error
    return wave.getvalue()
