"""EfficientAT mn: MobileNetV3 on log-mel spectrograms, tagged on AudioSet (F. Schmid, MIT).

Architecture: Howard et al., "Searching for MobileNetV3" (arXiv 1905.02244), table 1, with squeeze-and-excitation
over channels; training: Schmid et al., "Efficient Large-Scale Audio Tagging" (arXiv 2211.04772).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.encoders.base import CheckpointError, Encoder, FrontEnd
from training.encoders.checkpoint import as_state_dict, load_strict, read_checkpoint

PUBLISHED_RATE = 32_000  # Hz
MELS = 128
MEL_HIGH = 15_000.0  # Hz
PRE_EMPHASIS = 0.97
LOG_FLOOR = 1e-5  # power
HOP_SECONDS = 0.01
WINDOW_HOPS = 2.5
BIN_HERTZ = 31.25  # 1,024 points at 32 kHz
KAISER_BETA = 8.0
SHARED_HIGH = 7_200.0  # Hz; resamplers and codecs for 16 kHz begin to attenuate above


def mel_bank(bins: int) -> Tensor:
    """Compute Kaldi's triangular mel filters `(bins, MELS)` for bins of `BIN_HERTZ` from 0 Hz up."""
    high = _mel(torch.tensor(MEL_HIGH, dtype=torch.float64))
    step = high / (MELS + 1)
    left = step * torch.arange(MELS, dtype=torch.float64)  # (MELS,), the lower edge of each band
    mel = _mel(BIN_HERTZ * torch.arange(bins, dtype=torch.float64))[:, None]  # (bins, 1)
    rising, falling = (mel - left) / step, (left + 2 * step - mel) / step  # (bins, MELS)
    return torch.minimum(rising, falling).clamp(min=0)


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)


class MelFrontEnd(FrontEnd):
    """Computes the log-mel `(batch, frames, MELS)` of waveforms `(batch, samples)`.

    At 32 kHz it is the published front end. At 16 kHz the result equals that of the published front end for the same
    sound resampled to 32 kHz, at half the cost: the window has half as many samples, DFT bins have the same
    frequencies, and bands above 8 kHz have the log floor. The 32 kHz difference filter needs a value between two
    samples, so it includes an interpolation. Only the two frames at each end of a clip differ, because the published
    front end mirrors the filtered signal there.

    DFT bins above `limit_hz` are ignored, and bands without any bin below it have the log floor.

    The DFT is two steps of decimation in frequency (Cooley and Tukey, 1965) and then matrix products, which are fastest
    in graph runtimes: samples half a period apart are added for the even bins and subtracted for the odd ones, and the
    even bins are split again. It takes half the products of a dense matrix.
    """

    low_hz = 0.0
    high_hz = MEL_HIGH

    def __init__(self, sample_rate: int, limit_hz: float | None = None) -> None:
        super().__init__()
        if sample_rate not in (PUBLISHED_RATE, PUBLISHED_RATE // 2):
            raise ValueError(f"The EfficientAT front end takes 32000 or 16000 Hz, not {sample_rate}.")
        self.sample_rate = sample_rate
        self.limit_hz = limit_hz
        self.mels = MELS
        self.hop = round(HOP_SECONDS * sample_rate)
        self.published = sample_rate == PUBLISHED_RATE
        period = round(sample_rate / BIN_HERTZ)  # samples
        bank = mel_bank(period // 2 + 1)  # (bins, MELS)
        bank[-1] = 0  # the Nyquist bin has no sine part, so its power is not comparable
        if limit_hz is not None:
            bank[BIN_HERTZ * torch.arange(len(bank)) > limit_hz] = 0
        self._bands = int((bank.sum(dim=0) > 0).sum())
        step = PUBLISHED_RATE // sample_rate
        full = round(WINDOW_HOPS * HOP_SECONDS * PUBLISHED_RATE)
        place = torch.arange(0, full, step, dtype=torch.float64)  # (2.5 hop,)
        hann = 0.5 - 0.5 * torch.cos(2 * math.pi * place / (full - 1))  # not periodic
        self.register_buffer("window", (step * hann).float(), persistent=False)  # (2.5 hop,)
        self.window: Tensor
        for part, (length, bins) in enumerate(_decimated(period)):
            angle = 2 * math.pi * (torch.outer(torch.arange(length), bins) % period).double() / period
            self.register_buffer(f"cosine_{part}", angle.cos().float(), persistent=False)  # (length, len(bins))
            self.register_buffer(f"sine_{part}", angle.sin().float(), persistent=False)
            self.register_buffer(f"bank_{part}", bank[bins, : self._bands].float(), persistent=False)
        if not self.published:
            self.register_buffer("half_sample", _half_sample_difference(self.hop).float(), persistent=False)
            self.half_sample: Tensor

    @property
    def bands(self) -> int:
        return self._bands

    @property
    def min_samples(self) -> int:
        """Length of the shortest waveform that can be mirrored at its ends, in samples."""
        return (5 * self.hop // 4 if self.published else 3 * self.hop // 2) + 2

    def forward(self, waveform: Tensor) -> Tensor:
        logmel = (torch.log(self._mel_power(self._frames(waveform)) + LOG_FLOOR) + 4.5) / 5
        return functional.pad(logmel, (0, MELS - self._bands), value=(math.log(LOG_FLOOR) + 4.5) / 5)

    def _frames(self, waveform: Tensor) -> Tensor:
        """Filter a waveform and cut it into frames of 2.5 hops, one per hop: `(batch, frames, 2.5 hop)`."""
        if self.published:
            filtered = waveform[:, 1:] - PRE_EMPHASIS * waveform[:, :-1]
            reach = 5 * self.hop // 4
            # Padding to whole blocks is in no frame, here and below.
            mirrored = functional.pad(filtered, (reach, reach), mode="reflect")
            blocks = self._blocks(functional.pad(mirrored, (0, self.hop // 2)))
        else:
            # The published difference filter shortens the signal by one sample at 32 kHz, by half a sample at 16 kHz.
            half = 3 * self.hop // 2
            mirrored = functional.pad(waveform, (half, half - 1), mode="reflect")
            padded = self._blocks(functional.pad(mirrored, (0, self.hop)))
            blocks = torch.cat([padded[:, :-1], padded[:, 1:, : self.hop // 2]], dim=2) @ self.half_sample
        return torch.cat([blocks[:, :-2], blocks[:, 1:-1], blocks[:, 2:, : self.hop // 2]], dim=2)

    def _blocks(self, signal: Tensor) -> Tensor:
        """Cut `(batch, samples)` into `(batch, blocks, hop)`; the remainder is dropped."""
        return signal[:, : signal.shape[1] // self.hop * self.hop].reshape(signal.shape[0], -1, self.hop)

    def _mel_power(self, frames: Tensor) -> Tensor:
        """Compute the power in the mel bands, `(batch, frames, bands)`."""
        quarter = len(self.get_buffer("cosine_0"))
        windowed = frames * self.window
        overlap = len(self.window) - 2 * quarter
        early, middle, late = windowed[..., :overlap], windowed[..., overlap:-overlap], windowed[..., -overlap:]
        even = torch.cat([early + late, middle], dim=2)  # (batch, frames, 2 quarter)
        odd = torch.cat([early - late, middle], dim=2)
        first, second = even[..., :quarter], even[..., quarter:]
        return self._part(0, first + second) + self._part(1, first - second) + self._part(2, odd)

    def _part(self, part: int, folded: Tensor) -> Tensor:
        """Compute the contribution of one part of the spectrum to the mel bands."""
        real, imaginary = folded @ self.get_buffer(f"cosine_{part}"), folded @ self.get_buffer(f"sine_{part}")
        return (real * real + imaginary * imaginary) @ self.get_buffer(f"bank_{part}")


def _decimated(period: int) -> tuple[tuple[int, Tensor], ...]:
    """Return the parts of a DFT after two steps of decimation: number of samples, and bins."""
    bins = torch.arange(period // 2 + 1)
    return (period // 4, bins[::4]), (period // 4, bins[2::4]), (period // 2, bins[1::2])


def _half_sample_difference(hop: int) -> Tensor:
    """Compute the matrix `(1.5 hop, hop)` of x(n + 1/2) - 0.97 x(n) on 1.5 hops at 16 kHz.

    The half-sample shift is a sinc with a Kaiser window of half a hop.
    """
    reach = hop // 4
    offset = torch.arange(1 - reach, reach + 1, dtype=torch.float64)
    kaiser = torch.i0(KAISER_BETA * torch.sqrt((1 - ((offset - 0.5) / reach) ** 2).clamp(min=0))) / torch.i0(
        torch.tensor(KAISER_BETA, dtype=torch.float64)
    )
    taps = torch.sinc(offset - 0.5) * kaiser
    taps[reach - 1] -= PRE_EMPHASIS
    matrix = torch.zeros(3 * hop // 2, hop, dtype=torch.float64)
    for column in range(hop):
        matrix[column + 1 : column + 1 + len(taps), column] = taps
    return matrix


@dataclass(frozen=True)
class _Block:
    """One row of the MobileNetV3-Large table, with channels for width 1."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hardswish: bool
    stride: int


_STEM = 16
_BLOCKS = (
    _Block(3, 16, 16, False, False, 1),
    _Block(3, 64, 24, False, False, 2),
    _Block(3, 72, 24, False, False, 1),
    _Block(5, 72, 40, True, False, 2),
    _Block(5, 120, 40, True, False, 1),
    _Block(5, 120, 40, True, False, 1),
    _Block(3, 240, 80, False, True, 2),
    _Block(3, 200, 80, False, True, 1),
    _Block(3, 184, 80, False, True, 1),
    _Block(3, 184, 80, False, True, 1),
    _Block(3, 480, 112, True, True, 1),
    _Block(3, 672, 112, True, True, 1),
    _Block(5, 672, 160, True, True, 2),
    _Block(5, 960, 160, True, True, 1),
    _Block(5, 960, 160, True, True, 1),
)
_LAST_EXPANDED = 960
_HEAD = 1280


def scaled(channels: int, width: float) -> int:
    """Scale channels to a width: the nearest multiple of 8, but at most a tenth below."""
    return _multiple_of_8(channels * width)


def _multiple_of_8(value: float) -> int:
    nearest = max(8, int(value + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * value else nearest


# Module names below are those of the published state dict: `features.N.block.M...`, `conc_se_layers.0.fc1`.


def _conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
    return nn.Sequential(conv, norm, *([act] if act is not None else []))


class _SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _multiple_of_8(channels // 4)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3))  # (batch, channels)
        gate = torch.sigmoid(self.fc2(functional.relu(self.fc1(mean))))
        return x * gate[:, :, None, None]


class _ChannelGate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([_SqueezeExcitation(channels)])

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.conc_se_layers[0](x)
        return gated


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, row: _Block, width: float) -> None:
        super().__init__()
        expanded, outputs = scaled(row.expanded, width), scaled(row.out, width)
        act = nn.Hardswish if row.hardswish else nn.ReLU
        parts: list[nn.Module] = []
        if expanded != inputs:
            parts.append(_conv(inputs, expanded, act=act()))
        parts.append(_conv(expanded, expanded, row.kernel, row.stride, groups=expanded, act=act()))
        if row.squeeze:
            parts.append(_ChannelGate(expanded))
        parts.append(_conv(expanded, outputs))
        self.block = nn.Sequential(*parts)
        self.residual = row.stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.residual else y


class EfficientAT(Encoder):
    """EfficientAT mn of any width for 32 kHz; layers `block_00` (stem) to `block_16` (last convolution)."""

    name = "efficientat"
    license = "MIT"
    attribution = "EfficientAT mn (F. Schmid, K. Koutini, G. Widmer), https://github.com/fschmid56/EfficientAT"
    fits = ("efficientat", "efficientat-16k", "efficientat-7k")
    sample_rate: ClassVar[int] = PUBLISHED_RATE
    limit_hz: ClassVar[float | None] = None
    front_end: MelFrontEnd

    def __init__(self, width: float, classes: int = 527) -> None:
        super().__init__()
        self._sizes: dict[str, float | None] = {"width": width, "classes": classes}
        self.front_end = MelFrontEnd(self.sample_rate, self.limit_hz)
        channels = [scaled(_STEM, width)]
        blocks: list[nn.Module] = [_conv(1, channels[0], 3, 2, act=nn.Hardswish())]
        strides = [2]
        for row in _BLOCKS:
            blocks.append(_InvertedResidual(channels[-1], row, width))
            channels.append(scaled(row.out, width))
            strides.append(row.stride)
        last = 6 * channels[-1]
        blocks.append(_conv(channels[-1], last, act=nn.Hardswish()))
        # Depthwise convolutions are faster on a CPU with channels innermost.
        self.features = nn.Sequential(*blocks)
        for parameter in self.features.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        hidden = scaled(_HEAD, width)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(last, hidden),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(hidden, classes),
        )
        self._channels = [*channels, last]
        self._strides = [*strides, 1]
        self.eval()

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(f"block_{index:02d}" for index in range(len(self.features)))

    @property
    def min_samples(self) -> int:
        return self.front_end.min_samples

    def layer_shape(self, layer: str) -> tuple[int, int]:
        index = self._index(layer)
        freq = MELS
        for stride in self._strides[: index + 1]:
            freq = -(-freq // stride)
        return freq, self._channels[index]

    def grids(self, logmel: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        wanted = {self._index(layer): layer for layer in layers}
        x = logmel.transpose(1, 2).unsqueeze(1)  # (batch, 1, mels, frames)
        found: dict[str, Tensor] = {}
        for index in range(max(wanted) + 1):
            x = self.features[index](x)  # (batch, channels, freq, time)
            if index in wanted:
                found[wanted[index]] = x.permute(0, 3, 2, 1)
        return found

    def logits(self, logmel: Tensor) -> Tensor:
        """Compute AudioSet logits `(batch, classes)` with the published head, which a student does not have."""
        scores: Tensor = self.classifier(self.features(logmel.transpose(1, 2).unsqueeze(1)))
        return scores

    def _index(self, layer: str) -> int:
        try:
            return self.layers.index(layer)
        except ValueError:
            raise ValueError(f"{self.name} has no layer {layer!r}; it has {', '.join(self.layers)}.") from None

    @classmethod
    def from_checkpoint(cls, path: Path) -> Self:
        state = as_state_dict(read_checkpoint(path), path)
        last, head = "features.15.block.0.0.weight", "classifier.5.bias"
        absent = [key for key in (last, head) if key not in state]
        if absent:
            raise CheckpointError(f"{path} is not an EfficientAT mn checkpoint: missing: {', '.join(absent)}.")
        width = round(state[last].shape[0] / _LAST_EXPANDED, 2)
        encoder = cls(width, classes=state[head].shape[0])
        load_strict(encoder, state, path)
        return encoder

    @property
    def sizes(self) -> dict[str, float | None]:
        return self._sizes

    @classmethod
    def of_sizes(cls, sizes: Mapping[str, Any]) -> Self:
        return cls(**sizes)

    @classmethod
    def tiny(cls, seed: int) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(width=0.1, classes=7)


class EfficientAT16k(EfficientAT):
    """The same network for 16 kHz: sound above 8 kHz is missing, and the front end costs half."""

    name = "efficientat-16k"
    sample_rate = PUBLISHED_RATE // 2


class EfficientAT7k(EfficientAT16k):
    """The same network without sound above 7.2 kHz, which resampling and codecs change."""

    name = "efficientat-7k"
    limit_hz = SHARED_HIGH
