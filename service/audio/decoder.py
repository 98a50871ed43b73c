"""Entry point for decoding: chooses how a clip is decoded."""

from dataclasses import dataclass

from service.audio.budget import UNLIMITED, Budget
from service.audio.decode import Waveform
from service.audio.plain_wav import read_plain_wav
from service.audio.processes import DecoderPool


@dataclass(frozen=True)
class Decoder:
    """Decodes clips. Safe to call from many threads at once."""

    pool: DecoderPool

    def decode(self, data: bytes, sample_rate: int, budget: Budget = UNLIMITED) -> Waveform:
        """Decode a clip: a plain WAV file in this process, any other file in a child process.

        Args:
            data: bytes of a file.
            sample_rate: output sample rate, Hz.
            budget: budget of the request.

        Raises:
            OffkeyError: as `DecoderPool.decode`.
        """
        waveform = read_plain_wav(data, sample_rate, self.pool.limits.audio, budget)
        return self.pool.decode(data, sample_rate, budget) if waveform is None else waveform
