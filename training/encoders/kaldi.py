"""Kaldi's log-mel front end, with which BEATs, EAT and AST were trained, in operators of ONNX."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.encoders.base import FrontEnd

SAMPLE_RATE = 16_000  # Hz
FRAME = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FFT = 512
MELS = 128
LOWEST = 20.0  # Hz, Kaldi's default
PRE_EMPHASIS = 0.97
EPSILON = torch.finfo(torch.float32).eps  # Kaldi's floor under the logarithm

Window = Literal["povey", "hanning"]


def mel_banks() -> Tensor:
    """Compute Kaldi's triangular mel filters, `(FFT / 2, MELS)`; no filter uses the Nyquist bin.

    Source: Kaldi's `mel-computations.cc`: m(f) = 1127 ln(1 + f / 700), triangles in mel, no area
    normalization. Frequencies are float32 as in torchaudio, because published weights were trained with them. The
    rounding changes a weight by up to 1e-5: neighboring filters are 21 mel apart near 2840 mel.
    """

    def mel(frequency: float) -> float:
        return 1127.0 * math.log(1.0 + frequency / 700.0)

    lowest = mel(LOWEST)
    spacing = (mel(SAMPLE_RATE / 2) - lowest) / (MELS + 1)
    bank = torch.arange(MELS)
    left = lowest + bank * spacing  # (MELS,)
    center = lowest + (bank + 1.0) * spacing
    right = lowest + (bank + 2.0) * spacing
    bins = 1127.0 * (1.0 + (SAMPLE_RATE / FFT) * torch.arange(FFT // 2) / 700.0).log()
    bins = bins[:, None]  # (FFT / 2, 1)
    rising = (bins - left) / (center - left)  # (FFT / 2, MELS)
    falling = (right - bins) / (right - center)
    return torch.minimum(rising, falling).clamp(min=0.0)


def window(kind: Window) -> Tensor:
    """Compute a symmetric window `(FRAME,)`; Kaldi's "povey" is a Hann window to the power of 0.85."""
    hann = torch.hann_window(FRAME, periodic=False)
    return hann if kind == "hanning" else hann.pow(0.85)


def _spectrum_matrix(kind: Window) -> Tensor:
    """Combine pre-emphasis, window and zero-padded DFT, which are linear, in one matrix `(FRAME, FFT)`.

    The first FFT / 2 columns give the real part, the others the imaginary part. The matrix is computed in float64,
    because the small responses at low frequencies are differences of large numbers.
    """
    emphasis = torch.eye(FRAME, dtype=torch.float64)
    emphasis -= PRE_EMPHASIS * torch.diag(torch.ones(FRAME - 1, dtype=torch.float64), 1)
    # The predecessor of the first sample does not matter, because both windows start with zero.
    angle = torch.outer(torch.arange(FRAME), torch.arange(FFT // 2)) % FFT  # exact: integers
    angle = angle.double() * (2 * math.pi / FFT)
    transform = torch.cat([angle.cos(), -angle.sin()], dim=1)  # (FRAME, FFT)
    return (emphasis @ (window(kind).double()[:, None] * transform)).float()


class KaldiFbank(nn.Module):
    """Computes log-mel energies `(batch, frames, MELS)` of waveforms `(batch, samples)`.

    The result is that of Kaldi's `compute-fbank-feats` with 128 bins, no dither and `snip_edges`. Every frame is inside
    the waveform. The mean of a frame is removed, and it is pre-emphasized, windowed and transformed. Power is summed
    in mel filters and clamped to the float32 epsilon before the logarithm. Everything is computed in float32.
    """

    matrix: Tensor
    banks: Tensor

    def __init__(self, kind: Window) -> None:
        super().__init__()
        self.register_buffer("matrix", _spectrum_matrix(kind), persistent=False)
        self.register_buffer("banks", mel_banks(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        samples = waveform.shape[1]
        if samples < FRAME:
            raise ValueError(f"a waveform of {samples} samples is shorter than one frame of {FRAME}")
        # A frame has 2.5 hops. Half a hop of padding completes the last hop; no frame contains it.
        hops = functional.pad(waveform.float(), (0, 3 * HOP - FRAME)).unfold(1, HOP, HOP)  # (batch, frames + 2, HOP)
        framed = torch.cat([hops[:, :-2], hops[:, 1:-1], hops[:, 2:, : FRAME - 2 * HOP]], dim=2)
        # Autocast would run the products in bfloat16, which is too coarse for a log-mel spectrum.
        with torch.autocast(waveform.device.type, enabled=False):
            # (batch, frames, FRAME) -> (batch, frames, FFT)
            spectrum = (framed - framed.mean(dim=2, keepdim=True)) @ self.matrix
            real, imaginary = spectrum.chunk(2, dim=2)
            energies = (real.square() + imaginary.square()) @ self.banks  # (batch, frames, MELS)
        return energies.clamp(min=EPSILON).log()


class KaldiFrontEnd(FrontEnd):
    """Scales a waveform, applies `KaldiFbank`, and normalizes as in an encoder's training.

    Args:
        kind: type of the window.
        scale: factor of the waveform, which is in [-1, 1].
        mean: mean log-mel energy of the training data.
        std: standard deviation of the log-mel energies; the output is (x - mean) / (2 std), as in all three encoders.
        frames: number of frames to which the log-mel is padded with zeros or cut, before normalization; None keeps it.
        multiple: number of frames; if `frames` is None, the log-mel is padded with zeros to a multiple of it.
    """

    sample_rate = SAMPLE_RATE
    mels = MELS
    low_hz = LOWEST
    high_hz = SAMPLE_RATE / 2

    def __init__(
        self,
        kind: Window,
        *,
        scale: float,
        mean: float,
        std: float,
        frames: int | None = None,
        multiple: int = 1,
    ) -> None:
        super().__init__()
        self.fbank = KaldiFbank(kind)
        self.scale = scale
        self.mean = mean
        self.std = std
        self.frames = frames
        self.multiple = multiple

    def forward(self, waveform: Tensor) -> Tensor:
        # EAT and AST subtract the mean of the clip first, which has no effect: each frame is centered.
        logmel = self.fbank(waveform.float() * self.scale)  # (batch, frames, MELS)
        if self.frames is not None:
            logmel = functional.pad(logmel, (0, 0, 0, self.frames))[:, : self.frames]
        elif self.multiple > 1:
            logmel = functional.pad(logmel, (0, 0, 0, -logmel.shape[1] % self.multiple))
        normalized: Tensor = (logmel - self.mean) / (2 * self.std)
        return normalized
