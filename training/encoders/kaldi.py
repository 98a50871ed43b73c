"""The log-mel front end of Kaldi, as BEATs, EAT and AST were trained on, in operators that ONNX has."""

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
    """Kaldi's triangular mel filters, `(FFT / 2, MELS)`; the Nyquist bin belongs to none of them.

    Source: Kaldi's `mel-computations.cc`: m(f) = 1127 ln(1 + f / 700), triangles in mel, no area
    normalization. Frequencies are float32 there as in torchaudio, which is felt: neighboring filters are
    21 mel apart near 2840 mel, so rounding moves a weight by up to 1e-5, and published weights were trained
    on those.
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
    """`(FRAME,)`, symmetric: Kaldi's "povey" is a Hann window to the power of 0.85."""
    hann = torch.hann_window(FRAME, periodic=False)
    return hann if kind == "hanning" else hann.pow(0.85)


def _spectrum_matrix(kind: Window) -> Tensor:
    """Pre-emphasis, window and zero-padded DFT, which are linear, as one matrix `(FRAME, FFT)`.

    The first FFT / 2 columns give the real part, the others the imaginary one. It is made in float64, so
    that the small responses at low frequencies are not differences of rounded large numbers.
    """
    emphasis = torch.eye(FRAME, dtype=torch.float64)
    emphasis -= PRE_EMPHASIS * torch.diag(torch.ones(FRAME - 1, dtype=torch.float64), 1)
    # Which predecessor Kaldi gives the first sample is not felt: both windows begin with zero.
    angle = torch.outer(torch.arange(FRAME), torch.arange(FFT // 2)) % FFT  # exact: integers
    angle = angle.double() * (2 * math.pi / FFT)
    transform = torch.cat([angle.cos(), -angle.sin()], dim=1)  # (FRAME, FFT)
    return (emphasis @ (window(kind).double()[:, None] * transform)).float()


class KaldiFbank(nn.Module):
    """Waveform `(batch, samples)` -> log-mel energies `(batch, frames, MELS)`.

    As Kaldi's `compute-fbank-feats` with 128 bins, no dither and `snip_edges`: frames lie wholly inside the
    waveform, each loses its mean, is pre-emphasized, windowed and transformed; power is summed in mel
    filters and floored at the float32 epsilon before the logarithm. Always computed in float32.
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
        # A frame is two hops and a half; the half hop of padding makes the last hop whole, no frame hears it.
        hops = functional.pad(waveform.float(), (0, 3 * HOP - FRAME)).unfold(1, HOP, HOP)  # (batch, frames + 2, HOP)
        framed = torch.cat([hops[:, :-2], hops[:, 1:-1], hops[:, 2:, : FRAME - 2 * HOP]], dim=2)
        # Autocast would run the products in bfloat16, which has no room for a log-mel spectrum.
        with torch.autocast(waveform.device.type, enabled=False):
            # (batch, frames, FRAME) -> (batch, frames, FFT)
            spectrum = (framed - framed.mean(dim=2, keepdim=True)) @ self.matrix
            real, imaginary = spectrum.chunk(2, dim=2)
            energies = (real.square() + imaginary.square()) @ self.banks  # (batch, frames, MELS)
        return energies.clamp(min=EPSILON).log()


class KaldiFrontEnd(FrontEnd):
    """`KaldiFbank` between the scaling of the waveform and the normalization that an encoder was trained with.

    Args:
        kind: the window.
        scale: factor on the waveform, which comes in [-1, 1].
        mean: of the log-mel energies of the training data.
        std: likewise. The output is (x - mean) / (2 std), as all three encoders have it.
        frames: pad with zeros or cut to so many frames, before normalization. None keeps the length.
        multiple: where `frames` is None, pad with zeros to a multiple of so many frames.
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
        # EAT and AST take the mean of the clip off first, which nobody hears: every frame loses its own.
        logmel = self.fbank(waveform.float() * self.scale)  # (batch, frames, MELS)
        if self.frames is not None:
            logmel = functional.pad(logmel, (0, 0, 0, self.frames))[:, : self.frames]
        elif self.multiple > 1:
            logmel = functional.pad(logmel, (0, 0, 0, -logmel.shape[1] % self.multiple))
        normalized: Tensor = (logmel - self.mean) / (2 * self.std)
        return normalized
