"""AST (Y. Gong et al., "AST: Audio Spectrogram Transformer", arXiv 2104.01778).

A distilled DeiT over overlapping spectrogram patches. Parameters are named as in the published `.pth` files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from training.encoders import published
from training.encoders.base import CheckpointError, Encoder
from training.encoders.checkpoint import as_state_dict, read_checkpoint
from training.encoders.kaldi import KaldiFrontEnd
from training.encoders.vit import PATCH, Block, PatchEmbedding, layer_names, read_out, require_patch, samples_for

STRIDE = 10  # mel bands and frames from patch to patch
FREQ = 12  # patches in 128 mel bands
TIME = 101  # patches in the 1,024 frames of training
EXTRA = 2  # tokens for the whole clip: CLS and distillation
HEAD_DIM = 64  # head size of every DeiT

# Heads for ImageNet, which are in published files and which AST does not use.
_UNUSED = ("v.head.", "v.head_dist.")


@dataclass(frozen=True)
class ASTConfig:
    """Sizes, by default of the published base model; `classes` is the size of the head (AudioSet: 527).

    `frames` is the number of frames to which every clip is padded with silence or cut, 1,024 in the published
    evaluations. With None a clip keeps its length.
    """

    dim: int = 768
    hidden: int = 3072
    heads: int = 12
    depth: int = 12
    classes: int = 527
    frames: int | None = None


class DeiT(nn.Module):
    """Patches, the two tokens for the whole clip, positions, pre-norm blocks, final norm."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, config.dim) * 0.02)
        self.dist_token = nn.Parameter(torch.randn(1, 1, config.dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, EXTRA + FREQ * TIME, config.dim) * 0.02)
        self.patch_embed = PatchEmbedding(config.dim, stride=STRIDE)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.hidden, norm_first=True) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)

    def positions(self, time: int) -> Tensor:
        """Compute positions `(FREQ, time, dim)`: the middle ones for fewer patches, interpolated ones for more.

        As published for clips of other lengths than 1,024 frames, positions are cut around the center, or interpolated
        linearly with half-pixel centers. Both are one gather of two neighbors here, because a branch on the length
        cannot be exported.
        """
        table = torch.unflatten(self.pos_embed[0, EXTRA:], 0, (FREQ, TIME))
        index = torch.arange(time, device=table.device)
        count = torch.ones_like(index).sum()  # `time` as a tensor, so that the comparison below is in the graph
        stretched = ((index + 0.5) * (TIME / count.float()) - 0.5).clamp(min=0.0)
        middle = index + TIME // 2 - torch.div(count, 2, rounding_mode="floor")
        where = torch.where(count <= TIME, middle.float(), stretched)
        before = where.floor().long()
        after = (before + 1).clamp(max=TIME - 1)
        weight = (where - before)[None, :, None]
        return table.index_select(1, before) * (1 - weight) + table.index_select(1, after) * weight

    def embed(self, logmel: Tensor) -> Tensor:
        """Embed `(batch, frames, mels)` as the input of the first block, `(batch, 2 + freq * time, dim)`."""
        require_patch(logmel)
        patches = self.patch_embed(logmel.transpose(1, 2))  # (batch, freq, time, dim): AST has frequency first
        patches = (patches + self.positions(patches.shape[2])).flatten(1, 2)
        extra = torch.cat([self.cls_token, self.dist_token], dim=1) + self.pos_embed[:, :EXTRA]
        return torch.cat([extra.expand(patches.shape[0], -1, -1), patches], dim=1)

    def last(self, x: Tensor) -> Tensor:
        """Apply the last block and the final norm."""
        out: Tensor = self.norm(self.blocks[-1](x))
        return out


class AST(Encoder):
    """AST fine-tuned on AudioSet: 16 kHz, one token for 16 mel bands and 160 ms, every 10 bands and every 100 ms.

    Layers: `layer_00` is the input of the first block; the others are outputs of the blocks. Outputs are not normalized
    in a pre-norm transformer, except for the last (`layer_12`): it has the final norm, as in the published head. Frames
    that do not fill a patch are dropped.
    """

    name: ClassVar[str] = "ast"
    license: ClassVar[str] = "BSD-3-Clause"
    attribution: ClassVar[str] = "AST, Y. Gong et al., MIT: https://github.com/YuanGongND/ast"

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        self.config = config
        self.front_end = KaldiFrontEnd("hanning", scale=1.0, mean=-4.2677393, std=4.5689974, frames=config.frames)
        self.v = DeiT(config)
        self.mlp_head = nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, config.classes))

    @property
    def layers(self) -> tuple[str, ...]:
        return layer_names(self.config.depth)

    @property
    def min_samples(self) -> int:
        return samples_for(PATCH if self.config.frames is None else 1)

    def layer_shape(self, layer: str) -> tuple[int, int]:
        return FREQ, self.config.dim

    def tokens(self, logmel: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute all tokens of each of `layers`: CLS, distillation, then `freq * time`, frequency by frequency."""
        steps = [*self.v.blocks[:-1], self.v.last]
        return read_out(self.v.embed(logmel), steps, layers)

    def grids(self, logmel: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        found = self.tokens(logmel, layers)
        return {layer: torch.unflatten(x[:, EXTRA:], 1, (FREQ, -1)).transpose(1, 2) for layer, x in found.items()}

    def logits(self, logmel: Tensor) -> Tensor:
        """Compute logits `(batch, classes)`: the head on the mean of the CLS and the distillation token."""
        last = self.layers[-1]
        out: Tensor = self.mlp_head(self.tokens(logmel, [last])[last][:, :EXTRA].mean(dim=1))
        return out

    @classmethod
    def from_checkpoint(cls, path: Path, frames: int | None = None) -> Self:
        """Load a published `.pth` file: a state dict, with or without the prefix `module.`.

        Args:
            path: path of a file with stride 10 in time and frequency, 1,024 frames.
            frames: value of `ASTConfig.frames`.

        Raises:
            CheckpointError: as `Encoder.from_checkpoint`.
        """
        state = as_state_dict(read_checkpoint(path), path)
        state = {name.removeprefix("module."): value for name, value in state.items()}
        published.require(state, "AST", path)
        encoder = cls(_config(state, frames, path))
        used = {name: value for name, value in state.items() if not name.startswith(_UNUSED)}
        published.load_finite(encoder, used, path)
        return encoder.eval()

    @property
    def sizes(self) -> dict[str, float | None]:
        return vars(self.config)

    @classmethod
    def of_sizes(cls, sizes: Mapping[str, Any]) -> Self:
        return cls(ASTConfig(**sizes)).eval()

    @classmethod
    def tiny(cls, seed: int) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(ASTConfig(dim=32, hidden=64, heads=2, depth=3, classes=5)).eval()


def _config(state: dict[str, Tensor], frames: int | None, path: Path) -> ASTConfig:
    """Read the sizes from the shapes of the weights, because the file has no settings."""
    needed = ("v.dist_token", "v.blocks.0.mlp.fc1.weight", "mlp_head.1.weight")
    missing = [name for name in needed if name not in state]
    if missing:
        raise CheckpointError(f"{path} does not fit AST: missing: {', '.join(missing)}.")
    dim = state["v.dist_token"].shape[-1]
    return ASTConfig(
        dim=dim,
        hidden=state["v.blocks.0.mlp.fc1.weight"].shape[0],
        heads=max(1, dim // HEAD_DIM),
        depth=1 + max(int(name.split(".")[2]) for name in state if name.startswith("v.blocks.")),
        classes=state["mlp_head.1.weight"].shape[0],
        frames=frames,
    )
