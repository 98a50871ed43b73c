"""EAT (W. Chen et al., arXiv 2401.03497) and SSLAM (T. Alex et al., ICLR 2025), which differ only in their training.

A post-norm vision transformer over spectrogram patches. Parameters are named as in the published fairseq
checkpoints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from training.encoders import published
from training.encoders.base import Encoder
from training.encoders.checkpoint import as_state_dict, read_checkpoint
from training.encoders.kaldi import KaldiFrontEnd
from training.encoders.vit import PATCH, Block, PatchEmbedding, layer_names, read_out, require_patch, samples_for

FREQ = 8  # patches of 16 in 128 mel bands

# Settings of every published checkpoint.
_HANDLED = {"layer_norm_first": False, "norm_eps": 1e-6}
_HANDLED_IMAGE = {
    "patch_size": PATCH,
    "in_chans": 1,
    "num_extra_tokens": 1,
    "prenet_depth": 0,
    "fixed_positions": True,
    "use_alibi_encoder": False,
}
_HANDLED_HEAD = {"prediction_mode": "CLS_TOKEN", "use_fc_norm": True}
# Published files also have the decoder of the pre-training and the moving average of the weights.
_DECODER = "modality_encoders.IMAGE.decoder."
_AVERAGE = "_ema"


@dataclass(frozen=True)
class EATConfig:
    """Sizes, by default of the published base model; `classes` is the size of the head of fine-tuned models.

    `frames` is the number of frames to which every clip is padded with silence or cut, 1,024 in the published
    evaluations on 10 s clips. With None a clip is padded to the next whole patch, so all of it is used.
    """

    dim: int = 768
    hidden: int = 3072
    heads: int = 12
    depth: int = 12
    positions: int = 6144  # tokens with a position: 768 patches in time
    classes: int | None = None
    frames: int | None = None


class Positions(nn.Module):
    """Adds a fixed vector of the checkpoint to each token."""

    positions: Tensor

    def __init__(self, config: EATConfig) -> None:
        super().__init__()
        self.register_buffer("positions", torch.randn(1, config.positions, config.dim) * 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        count = tokens.shape[1]
        if count > self.positions.shape[1]:
            longest = self.positions.shape[1] // FREQ * PATCH / 100
            raise ValueError(f"the clip is longer than {longest:g} s, the length of this EAT's positions; cut it")
        return tokens + self.positions[:, :count]


class ContextEncoder(nn.Module):
    """EAT's context encoder without a prenet: one layer norm before the blocks."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x)
        return out


class PatchEncoder(nn.Module):
    """Embeds a normalized log-mel as the tokens of the first block, CLS before the patches."""

    def __init__(self, config: EATConfig) -> None:
        super().__init__()
        self.extra_tokens = nn.Parameter(torch.randn(1, 1, config.dim) * 0.02)
        self.local_encoder = PatchEmbedding(config.dim, stride=PATCH)
        self.fixed_positional_encoder = Positions(config)
        self.context_encoder = ContextEncoder(config.dim)

    def forward(self, logmel: Tensor) -> Tensor:
        """Embed `(batch, frames, mels)` as `(batch, 1 + time * freq, dim)`."""
        require_patch(logmel)
        tokens = self.fixed_positional_encoder(self.local_encoder(logmel).flatten(1, 2))
        cls = self.extra_tokens.expand(tokens.shape[0], -1, -1)
        out: Tensor = self.context_encoder(torch.cat([cls, tokens], dim=1))
        return out


class EAT(Encoder):
    """EAT, pre-trained or fine-tuned: 16 kHz, one token for 16 mel bands and 160 ms.

    Layers: `layer_00` is the input of the first block, `layer_12` the output of the last. As published, a clip is
    padded with zeros in the log-mel domain to whole patches, before normalization.
    """

    name: ClassVar[str] = "eat"
    license: ClassVar[str] = "MIT"
    attribution: ClassVar[str] = "EAT, W. Chen et al.: https://github.com/cwx-worst-one/EAT"

    def __init__(self, config: EATConfig) -> None:
        super().__init__()
        if config.frames is not None and config.frames % PATCH:
            raise ValueError(f"frames is {config.frames}, it must be a multiple of {PATCH}")
        self.config = config
        self.front_end = KaldiFrontEnd(
            "hanning", scale=1.0, mean=-4.268, std=4.569, frames=config.frames, multiple=PATCH
        )
        self.modality_encoders = nn.ModuleDict({"IMAGE": PatchEncoder(config)})
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.hidden, norm_first=False) for _ in range(config.depth)
        )
        if config.classes is not None:
            self.fc_norm = nn.LayerNorm(config.dim, eps=1e-6)
            self.head = nn.Linear(config.dim, config.classes)

    @property
    def layers(self) -> tuple[str, ...]:
        return layer_names(self.config.depth)

    @property
    def min_samples(self) -> int:
        return samples_for(1)

    def layer_shape(self, layer: str) -> tuple[int, int]:
        return FREQ, self.config.dim

    def tokens(self, logmel: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute all tokens of each of `layers`, CLS first: `(batch, 1 + time * freq, dim)`."""
        return read_out(self.modality_encoders["IMAGE"](logmel), list(self.blocks), layers)

    def grids(self, logmel: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        found = self.tokens(logmel, layers)
        return {layer: torch.unflatten(x[:, 1:], 1, (-1, FREQ)) for layer, x in found.items()}

    def logits(self, logmel: Tensor) -> Tensor:
        """Compute logits `(batch, classes)` of a fine-tuned model: the head on the CLS token.

        Raises:
            ValueError: the encoder has no head.
        """
        if self.config.classes is None:
            raise ValueError("this EAT has no head; load a fine-tuned checkpoint")
        last = self.layers[-1]
        out: Tensor = self.head(self.fc_norm(self.tokens(logmel, [last])[last][:, 0]))
        return out

    @classmethod
    def from_checkpoint(cls, path: Path, frames: int | None = None) -> Self:
        """Load a published fairseq `.pt` file, pre-trained or fine-tuned; float16 weights become float32.

        Args:
            path: path of the file.
            frames: value of `EATConfig.frames`.

        Raises:
            CheckpointError: as `Encoder.from_checkpoint`.
        """
        found = read_checkpoint(path)
        state = dict(published.settings(found, "model", path))
        published.require(state, "EAT or SSLAM", path)
        state.pop(_AVERAGE, None)
        state = {name.removeprefix("model."): value for name, value in as_state_dict(state, path).items()}
        config = _config(published.settings(found, "cfg.model", path), state, frames, path)
        encoder = cls(config)
        used = {name: value for name, value in state.items() if not name.startswith(_DECODER)}
        published.load_finite(encoder, used, path)
        return encoder.eval()

    @property
    def sizes(self) -> dict[str, float | None]:
        return vars(self.config)

    @classmethod
    def of_sizes(cls, sizes: Mapping[str, Any]) -> Self:
        return cls(EATConfig(**sizes)).eval()

    @classmethod
    def tiny(cls, seed: int) -> Self:
        config = EATConfig(dim=32, hidden=64, heads=2, depth=3, positions=FREQ * 96, classes=5)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config).eval()


class SSLAM(EAT):
    """EAT with further training on mixtures and a loss that retains both sources; layers and files are those of EAT."""

    name: ClassVar[str] = "sslam"
    attribution: ClassVar[str] = "SSLAM, T. Alex et al., University of Surrey: https://github.com/ta012/SSLAM"


def _config(model: Mapping[str, Any], state: Mapping[str, Tensor], frames: int | None, path: Path) -> EATConfig:
    classes = None
    if "pretrained_model_args" in model:
        published.check(model, _HANDLED_HEAD, path)
        classes = published.number(model, "num_classes", path)
        model = published.settings(model, "pretrained_model_args.model", path)
    published.check(model, _HANDLED, path)
    published.check(published.settings(model, "modalities.image", path), _HANDLED_IMAGE, path)
    dim = published.number(model, "embed_dim", path)
    positions = state.get("modality_encoders.IMAGE.fixed_positional_encoder.positions")
    return EATConfig(
        dim=dim,
        hidden=round(dim * float(model.get("mlp_ratio", 4.0))),
        heads=published.number(model, "num_heads", path),
        depth=published.number(model, "depth", path),
        # The maximum length of a clip depends on the file; a file without positions is refused on loading.
        positions=FREQ if positions is None else positions.shape[1],
        classes=classes,
        frames=frames,
    )
