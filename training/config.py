"""A run's settings: frozen defaults, a TOML file that differs from them, `key=value` on top."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.data.layouts.collection import Collection
from training.tables import ConfigError as ConfigError
from training.tables import build, lay_over, read_toml


@dataclass(frozen=True)
class EncoderConfig:
    """Where the student starts: a registered encoder and its published checkpoint."""

    name: str = "efficientat-16k"  # a registered encoder, or package.module:ClassName
    checkpoint: str = ""  # the published file, or the folder of a run that trained this encoder


@dataclass(frozen=True)
class TeacherConfig:
    """Whom the student listens to; by default a frozen copy of itself as it starts.

    Another teacher is a model bundle, or an encoder with a read-out of its own that is whitened as the student's is.
    """

    bundle: str = ""  # folder with a manifest.json
    name: str = ""  # a registered encoder
    checkpoint: str = ""
    layers: tuple[str, ...] = ()
    pooling: str = "mean"

    @property
    def is_copy(self) -> bool:
        """Is it the student's own start?"""
        return not (self.bundle or self.name)


@dataclass(frozen=True)
class ReadoutConfig:
    """From which layers the embedding is read, and how."""

    layers: tuple[str, ...] = ("block_08",)
    pooling: str = "mean-deviation"
    covariance: Literal["within-noise", "total", "none"] = "within-noise"
    epsilon: float = 0.001
    mixtures: int = 4000  # pairs of mixtures of one source that the covariance is of


@dataclass(frozen=True)
class WindowConfig:
    """How the service cuts clips for the exported student, in seconds."""

    seconds: float = 10.0
    hop_seconds: float = 5.0
    min_seconds: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    """Which clips are heard, and as what."""

    manifest: str = ""
    cache: str = "runs/cache"  # decoded clips and teacher embeddings; may be deleted
    permissive: bool = True  # only clips whose weights may be published
    roles: tuple[str, ...] = ("source",)
    collections: tuple[Collection, ...] = ()  # more clips, beside the manifest
    noise_labels: tuple[str, ...] = ()  # these labels are noise, all others are sources
    noise_roles: tuple[str, ...] = ()  # clips of these roles are noise, whatever their label
    window_seconds: float = 5.0
    balance: Literal["label", "clip"] = "label"  # draw every label, or every clip, equally often
    held_out_splits: tuple[str, ...] = ("held-out",)  # splits that are never trained on
    held_out_share: float = 0.05  # of all clips, chosen by name, where no clip is in these splits


@dataclass(frozen=True)
class MixingConfig:
    """How mixtures are made."""

    snr_db: tuple[float, ...] = (0.0,)  # dB, source over noise: one, a list, or the ends of a range
    draw: Literal["choice", "uniform"] = "choice"  # one of the list, or anything between the two ends


@dataclass(frozen=True)
class SpecAugmentConfig:
    """Masks on the mixture's log-mel; widths are drawn from 0 to the maximum, per clip and mask."""

    time_masks: int = 0
    time_width: int = 40  # frames
    freq_masks: int = 0
    freq_width: int = 12  # mel bands


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which losses a run uses, and their weights.

    `retain` is tagging and alignment to the mixture; `denoise` aligns to the clean sound alone; `tagging` and
    `alignment` keep one loss of `retain`.
    """

    kind: Literal["retain", "denoise", "tagging", "alignment"] = "retain"
    tagging_weight: float = 0.1
    alignment_weight: float = 1.0
    anchor_weight: float = 0.0  # of the distance of sounds that are not mixed to the teacher's embeddings of them
    level: Literal["clip", "frame", "token"] = "clip"  # embeddings, or the grids of `readout.layers`
    space: Literal["unit", "whitened", "pooled"] = "unit"  # of embeddings: which stage of the read-out is aligned
    clean_share: float = 0.5  # lambda
    share: Literal["fixed", "energy"] = "fixed"  # energy: lambda is the clean sound's share of the mixture's energy


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, linear warm-up, cosine to zero."""

    steps: int = 400
    batch: int = 24  # mixtures per step, over all processes
    accumulate: int = 1  # parts in which a process handles its share of a batch, one after the other
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 40
    clip_norm: float = 1.0
    ema_decay: float = 0.0  # of an average of the encoder's weights, which is what is saved at the end; 0: none


@dataclass(frozen=True)
class LoopConfig:
    """Where a run computes and what it leaves behind on its way."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"  # of the encoders' layers; all else is float32
    workers: int = 0  # processes that load batches ahead; 0: the training process itself
    evaluate_steps: int = 50  # steps between measurements on the held-out mixtures; 0: never
    held_out_mixtures: int = 192
    patience: int = 0  # measurements without a better one after which a run stops; 0: it runs to the end
    checkpoint_steps: int = 200  # steps between checkpoints; 0: only the last
    keep_checkpoints: int = 2


@dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    seed: int = 0
    threads: int = 1  # of torch; more than there are idle cores is much slower than fewer
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    data: DataConfig = field(default_factory=DataConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file and lay `key=value` overrides on top, as in `optim.steps=100`.

    Raises:
        ConfigError: no such file, not TOML, an unknown key (the nearest known one is named), or a wrong kind
            of value.
    """
    return _with(read_toml(path), overrides)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """Lay `key=value` on top of a config. Raises `ConfigError` as `load_config` does."""
    return _with(to_table(config), overrides)


def differences(one: Config, other: Config) -> Iterator[tuple[str, Any, Any]]:
    """Key and both values of everything in which two configs differ, in the order of the keys."""
    first, second = (dict(_leaves(to_table(config), "")) for config in (one, other))
    return ((key, first[key], second[key]) for key in first if first[key] != second[key])


def from_table(table: Mapping[str, Any]) -> Config:
    """Build a config from nested tables of differences. Raises `ConfigError` as `load_config` does."""
    return build(Config, table)


def to_table(config: Config) -> dict[str, Any]:
    """The whole config as nested tables, for a run folder. `from_table` reads it back."""
    return dataclasses.asdict(config)


def _with(table: dict[str, Any], overrides: Sequence[str]) -> Config:
    lay_over(table, overrides)
    return from_table(table)


def _leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
