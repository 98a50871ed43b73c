"""BEATs (S. Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", arXiv 2212.09058).

A transformer over spectrogram patches: convolutional position embedding (wav2vec 2.0), gated relative position
bias (WavLM, arXiv 2110.13900, section 3.1), residuals scaled as in DeepNorm (arXiv 2203.00555). Parameters are
named as in the published checkpoints.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.encoders import published
from training.encoders.base import CheckpointError, Encoder
from training.encoders.checkpoint import as_state_dict, read_checkpoint
from training.encoders.kaldi import KaldiFrontEnd
from training.encoders.vit import PATCH, join_heads, layer_names, read_out, require_patch, samples_for

FREQ = 8  # patches of 16 in 128 mel bands

# Settings of every published checkpoint.
_HANDLED = {
    "input_patch_size": PATCH,
    "conv_bias": False,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
}
# Every layer stores a copy of the first layer's table, which all layers share.
_BIAS = "encoder.layers.{}.self_attn.relative_attention_bias.weight"


@dataclass(frozen=True)
class BEATsConfig:
    """Sizes, by default of the published base model; `classes` is the size of the head of fine-tuned models."""

    patch_dim: int = 512
    dim: int = 768
    hidden: int = 3072
    heads: int = 12
    depth: int = 12
    conv_pos: int = 128  # length of the position convolution, in tokens
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800  # tokens
    classes: int | None = None


class PositionConv(nn.Module):
    """Grouped convolution over tokens with normalized weights per tap: weight_g * weight_v / ||weight_v||."""

    def __init__(self, dim: int, taps: int, groups: int) -> None:
        super().__init__()
        self.taps = taps
        self.groups = groups
        self.bias = nn.Parameter(torch.zeros(dim))
        self.weight_v = nn.Parameter(torch.randn(dim, dim // groups, taps) * math.sqrt(4 / (taps * dim)))
        self.weight_g = nn.Parameter(self._norm().detach())

    def _norm(self) -> Tensor:
        return self.weight_v.square().sum(dim=(0, 1), keepdim=True).sqrt()  # (1, 1, taps)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens `(batch, tokens, dim)` to the same shape."""
        weight = self.weight_v * (self.weight_g / self._norm())
        # In bfloat16 oneDNN's grouped convolution has errors of 90 % on processors with AMX (torch 2.13).
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and not x.is_cpu):
            rows = x.transpose(1, 2)
            rows = rows.float() if x.is_cpu else rows
            out = functional.conv1d(rows, weight, self.bias, padding=self.taps // 2, groups=self.groups)
        # An even number of taps gives one output too many.
        return out[:, :, : x.shape[1]].transpose(1, 2)


class RelativeAttention(nn.Module):
    """Self-attention with a bias for each distance between tokens, gated by the query (WavLM, equation 3)."""

    def __init__(self, config: BEATsConfig, *, has_table: bool) -> None:
        super().__init__()
        self.heads = config.heads
        self.max_distance = config.max_distance
        self.q_proj = nn.Linear(config.dim, config.dim)
        self.k_proj = nn.Linear(config.dim, config.dim)
        self.v_proj = nn.Linear(config.dim, config.dim)
        self.out_proj = nn.Linear(config.dim, config.dim)
        self.grep_linear = nn.Linear(config.dim // config.heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, config.heads, 1, 1))
        if has_table:
            self.relative_attention_bias = nn.Embedding(config.num_buckets, config.heads)

    def position_bias(self, tokens: int, device: torch.device) -> Tensor:
        """Compute the bias `(heads, query, key)` by the bucket of key - query."""
        position = torch.arange(tokens, device=device)
        distance = position[None] - position[:, None]
        buckets = bucket(distance, self.relative_attention_bias.num_embeddings, self.max_distance)
        bias: Tensor = self.relative_attention_bias(buckets)  # (query, key, heads)
        return bias.permute(2, 0, 1)

    def forward(self, x: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
        """Transform tokens `(batch, tokens, dim)` to the same shape; `padding` `(batch, tokens)` masks tokens."""
        query, key, value = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (batch, heads, tokens, dim / heads)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        gates = self.grep_linear(query).unflatten(3, (2, 4)).sum(dim=4).sigmoid()
        update, reset = gates.split(1, dim=3)  # each (batch, heads, tokens, 1)
        mask = (update * (reset * self.grep_a - 1.0) + 2.0) * bias  # (batch, heads, query, key)
        if padding is not None:
            mask = mask.masked_fill(padding[:, None, None], float("-inf"))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.dtype))
        out: Tensor = self.out_proj(join_heads(mixed))
        return out


def bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Compute the bucket of distances as in T5 (arXiv 1910.10683, section 2.1): linear, then logarithmic.

    The first half of the `buckets` is for distances of at most zero, the second half for positive ones. All distances
    from `max_distance` on share one bucket.
    """
    half = buckets // 2
    exact = half // 2
    size = distance.abs()
    log_size = (size.clamp(min=exact).float() / exact).log() / math.log(max_distance / exact)
    large = (exact + (log_size * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance > 0, half, 0) + torch.where(size < exact, size, large)


class Layer(nn.Module):
    """Attention and MLP, each with a scaled residual and a layer norm after it."""

    def __init__(self, config: BEATsConfig, *, has_table: bool) -> None:
        super().__init__()
        self.residual_scale = (2 * config.depth) ** 0.25  # DeepNorm, table 1, encoder-only
        self.self_attn = RelativeAttention(config, has_table=has_table)
        self.self_attn_layer_norm = nn.LayerNorm(config.dim)
        self.fc1 = nn.Linear(config.dim, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.dim)
        self.final_layer_norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
        """Transform tokens `(batch, tokens, dim)` to the same shape."""
        x = self.self_attn_layer_norm(x * self.residual_scale + self.self_attn(x, bias, padding))
        mixed = self.fc2(functional.gelu(self.fc1(x)))
        out: Tensor = self.final_layer_norm(x * self.residual_scale + mixed)
        return out


class Transformer(nn.Module):
    """Position convolution, layer norm, layers that share the first one's position bias."""

    def __init__(self, config: BEATsConfig) -> None:
        super().__init__()
        self.pos_conv = nn.Sequential(PositionConv(config.dim, config.conv_pos, config.conv_pos_groups), nn.GELU())
        self.layer_norm = nn.LayerNorm(config.dim)
        self.layers = nn.ModuleList(Layer(config, has_table=i == 0) for i in range(config.depth))

    def forward(self, x: Tensor, layers: Sequence[str], padding: Tensor | None) -> dict[str, Tensor]:
        """Transform tokens `(batch, tokens, dim)` to the same shape for each of `layers`."""
        if padding is not None:
            x = x.masked_fill(padding[:, :, None], 0.0)
        x = self.layer_norm(x + self.pos_conv(x))
        attention = self.layers[0].self_attn
        assert isinstance(attention, RelativeAttention)
        bias = attention.position_bias(x.shape[1], x.device)
        steps = [partial(layer, bias=bias, padding=padding) for layer in self.layers]
        return read_out(x, steps, layers)


class BEATs(Encoder):
    """BEATs, pre-trained or fine-tuned: 16 kHz, one token for 16 mel bands and 160 ms.

    Layers: `layer_00` is the input of the first transformer layer (after the position convolution and its norm),
    `layer_06` the output of the sixth, `layer_12` that of the last. Frames that do not fill a patch are dropped.
    """

    name: ClassVar[str] = "beats"
    license: ClassVar[str] = "MIT"
    attribution: ClassVar[str] = (
        "BEATs, S. Chen et al., Microsoft: https://github.com/microsoft/unilm/tree/master/beats"
    )

    def __init__(self, config: BEATsConfig) -> None:
        super().__init__()
        self.config = config
        # Kaldi works on 16-bit integers.
        self.front_end = KaldiFrontEnd("povey", scale=2.0**15, mean=15.41663, std=6.55582)
        self.patch_embedding = nn.Conv2d(1, config.patch_dim, kernel_size=PATCH, stride=PATCH, bias=False)
        self.layer_norm = nn.LayerNorm(config.patch_dim)
        self.post_extract_proj = nn.Linear(config.patch_dim, config.dim)
        self.encoder = Transformer(config)
        if config.classes is not None:
            self.predictor = nn.Linear(config.dim, config.classes)

    @property
    def layers(self) -> tuple[str, ...]:
        return layer_names(self.config.depth)

    @property
    def min_samples(self) -> int:
        return samples_for(PATCH)

    def layer_shape(self, layer: str) -> tuple[int, int]:
        return FREQ, self.config.dim

    def grids(self, logmel: Tensor, layers: Sequence[str], padding: Tensor | None = None) -> dict[str, Tensor]:
        """Compute grids as `Encoder.grids`, optionally with a mask of padding.

        `padding` `(batch, frames)` is true for frames of padding. No token attends to them, and their cells of the grid
        have no meaning. `fold_padding` computes it from a mask of samples.
        """
        require_patch(logmel)
        patches = self.patch_embedding(logmel.unsqueeze(1))  # (batch, patch_dim, time, freq)
        tokens = self.layer_norm(patches.flatten(2).transpose(1, 2))  # (batch, time * freq, patch_dim)
        tokens = self.post_extract_proj(tokens)
        if padding is not None:
            padding = fold_padding(padding, tokens.shape[1])
        found = self.encoder(tokens, layers, padding)
        return {layer: torch.unflatten(x, 1, (-1, FREQ)) for layer, x in found.items()}

    def logits(self, logmel: Tensor, padding: Tensor | None = None) -> Tensor:
        """Compute logits `(batch, classes)` of a fine-tuned model: the head's mean over tokens without padding.

        Raises:
            ValueError: the encoder has no head.
        """
        if self.config.classes is None:
            raise ValueError("this BEATs has no head; load a fine-tuned checkpoint")
        last = self.layers[-1]
        each = self.predictor(self.grids(logmel, [last], padding)[last].flatten(1, 2))  # (batch, tokens, classes)
        if padding is None:
            mean: Tensor = each.mean(dim=1)
            return mean
        valid = ~fold_padding(padding, each.shape[1])[:, :, None]
        total: Tensor = (each * valid).sum(dim=1) / valid.sum(dim=1)
        return total

    @classmethod
    def from_checkpoint(cls, path: Path) -> Self:
        """Load a published `.pt` file: `{"cfg", "model"}`, and `label_dict` in fine-tuned models.

        Raises:
            CheckpointError: as `Encoder.from_checkpoint`.
        """
        found = read_checkpoint(path)
        state = as_state_dict(published.settings(found, "model", path), path)
        published.require(state, "BEATs", path)
        config = _config(published.settings(found, "cfg", path), path)
        encoder = cls(config)
        published.load_finite(encoder, _without_copies(state, config.depth, path), path)
        return encoder.eval()

    @property
    def sizes(self) -> dict[str, float | None]:
        return vars(self.config)

    @classmethod
    def of_sizes(cls, sizes: Mapping[str, Any]) -> Self:
        return cls(BEATsConfig(**sizes)).eval()

    @classmethod
    def tiny(cls, seed: int) -> Self:
        config = BEATsConfig(
            patch_dim=24, dim=32, hidden=64, heads=2, depth=3, conv_pos=16, conv_pos_groups=4, classes=5
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config).eval()


def fold_padding(padding: Tensor, length: int) -> Tensor:
    """Shorten a mask `(batch, longer)` to `(batch, length)`; a result is true if its whole segment is true.

    As published, the mask is cut into `length` equal segments and the remainder is dropped. This treats tokens as a
    sequence in time, although eight tokens share one time. So the tokens of the last patch of a clip are split into
    valid ones and padding by band.
    """
    run = padding.shape[1] // length
    return torch.unflatten(padding[:, : run * length], 1, (length, run)).all(dim=2)


def _config(cfg: Any, path: Path) -> BEATsConfig:
    published.check(cfg, _HANDLED, path)
    classes = published.number(cfg, "predictor_class", path) if cfg.get("finetuned_model") else None
    return BEATsConfig(
        patch_dim=published.number(cfg, "embed_dim", path),
        dim=published.number(cfg, "encoder_embed_dim", path),
        hidden=published.number(cfg, "encoder_ffn_embed_dim", path),
        heads=published.number(cfg, "encoder_attention_heads", path),
        depth=published.number(cfg, "encoder_layers", path),
        conv_pos=published.number(cfg, "conv_pos", path),
        conv_pos_groups=published.number(cfg, "conv_pos_groups", path),
        num_buckets=published.number(cfg, "num_buckets", path),
        max_distance=published.number(cfg, "max_distance", path),
        classes=classes,
    )


def _without_copies(state: dict[str, Tensor], depth: int, path: Path) -> dict[str, Tensor]:
    """Remove the copies of the position bias. Raises `CheckpointError` if one is missing or differs."""
    table = state.get(_BIAS.format(0))
    state = dict(state)
    for name in map(_BIAS.format, range(1, depth)):
        copy = state.pop(name, None)
        if copy is None:
            raise CheckpointError(f"{path} does not fit BEATs: missing: {name}.")
        if table is not None and not torch.equal(copy, table):
            raise CheckpointError(f"{path}: {name} differs from the one of the first layer, which all layers share.")
    return state
