"""Parts that the transformers over spectrogram patches share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.encoders.kaldi import FRAME, HOP

PATCH = 16  # mel bands and frames


def samples_for(frames: int) -> int:
    """Compute the number of samples of a number of frames."""
    return FRAME + (frames - 1) * HOP


def layer_names(depth: int) -> tuple[str, ...]:
    """Name the layers: `layer_00` is the input of the first block, `layer_NN` the output of block NN of `depth`."""
    return tuple(f"layer_{i:02d}" for i in range(depth + 1))


def read_out(x: Tensor, blocks: Sequence[Callable[[Tensor], Tensor]], layers: Sequence[str]) -> dict[str, Tensor]:
    """Run `blocks` on `(batch, tokens, dim)` up to the last of `layers`; return the outputs of these layers.

    Raises:
        ValueError: `layers` is empty or has an unknown layer.
    """
    names = layer_names(len(blocks))
    unknown = [layer for layer in layers if layer not in names]
    if unknown or not layers:
        requested = ", ".join(unknown) or "none"
        raise ValueError(f"requested layers: {requested}; there are {names[0]} to {names[-1]}")
    found = {names[0]: x}
    deepest = max(names.index(layer) for layer in layers)
    for name, block in zip(names[1 : deepest + 1], blocks, strict=False):
        x = found[name] = block(x)
    return {layer: found[layer] for layer in layers}


def require_patch(logmel: Tensor) -> None:
    """Check that `(batch, frames, mels)` has the frames of at least one patch.

    Raises:
        ValueError: there are fewer frames.
    """
    if logmel.shape[1] < PATCH:
        raise ValueError(
            f"{logmel.shape[1]} frames are fewer than the {PATCH} of one patch: "
            f"the waveform must have at least {samples_for(PATCH)} samples"
        )


class PatchEmbedding(nn.Module):
    """Maps every patch of `PATCH` by `PATCH` linearly; an incomplete patch at the end is dropped."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, kernel_size=PATCH, stride=stride)

    def forward(self, image: Tensor) -> Tensor:
        """Embed `(batch, rows, columns)` as `(batch, patch rows, patch columns, dim)`."""
        patches: Tensor = self.proj(image.unsqueeze(1))  # (batch, dim, patch rows, patch columns)
        return patches.permute(0, 2, 3, 1)


def join_heads(x: Tensor) -> Tensor:
    """Join `(batch, heads, tokens, dim)` to `(batch, tokens, heads * dim)`.

    The copy is explicit because the exported graph fails without it, even if PyTorch needs none.
    """
    joined: Tensor = x.transpose(1, 2).clone(memory_format=torch.contiguous_format).flatten(2)
    return joined


class Attention(nn.Module):
    """Self-attention over all tokens, query, key and value from one linear map (Vaswani et al., 2017)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # each (batch, heads, tokens, dim / heads)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(join_heads(mixed))
        return out


class Mlp(nn.Module):
    """Two linear maps with an exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """A transformer block: attention and MLP, each with a residual and a layer norm before or after it.

    Args:
        norm_first: whether the inputs of attention and MLP are normalized (AST), or their residual sums (EAT).
    """

    def __init__(self, dim: int, heads: int, hidden: int, *, norm_first: bool, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens `(batch, tokens, dim)` to the same shape."""
        out: Tensor
        if self.norm_first:
            x = x + self.attn(self.norm1(x))
            out = x + self.mlp(self.norm2(x))
        else:
            x = self.norm1(x + self.attn(x))
            out = self.norm2(x + self.mlp(x))
        return out
