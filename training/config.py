"""The config of a training run: defaults, a TOML file of changed values, and `key=value` overrides."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.data.layouts.collection import Collection
from training.toml_settings import ConfigError as ConfigError
from training.toml_settings import apply_overrides, from_tables, read_toml


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder and the weights that the student starts from."""

    name: str = "efficientat-16k"  # registered encoder, or package.module:ClassName
    checkpoint: str = ""  # published file, folder of a bundle, or folder of a run that trained this encoder


@dataclass(frozen=True)
class TeacherConfig:
    """The teacher; by default a frozen copy of the student at its start.

    Another teacher is a model bundle, or an encoder with its own read-out, which is whitened like the student's.
    """

    bundle: str = ""  # folder of a model bundle
    name: str = ""  # registered encoder
    checkpoint: str = ""  # weights of that encoder
    layers: tuple[str, ...] = ()  # layers of its read-out
    pooling: str = "mean"  # pooling of its read-out

    @property
    def is_copy(self) -> bool:
        """Return whether the teacher is a copy of the student."""
        return not (self.bundle or self.name)


@dataclass(frozen=True)
class ReadoutConfig:
    """The read-out: from token grids of some layers to the embedding."""

    layers: tuple[str, ...] = ("block_08",)
    pooling: str = "mean-deviation"
    covariance: Literal["within-noise", "total", "none"] = "within-noise"
    epsilon: float = 0.001  # regularization of the covariance, as a share of its mean variance
    mixtures: int = 4000  # pairs of mixtures from which the covariance is computed


@dataclass(frozen=True)
class WindowConfig:
    """The windows into which the service cuts clips for the exported student, in seconds."""

    seconds: float = 10.0
    hop_seconds: float = 5.0
    min_seconds: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    """The clips of a run, as sources and as noise."""

    manifest: str = ""  # CSV file of clips
    cache: str = "runs/cache"  # decoded clips and teacher embeddings; may be deleted
    permissive: bool = True  # only clips whose license allows publishing the weights
    roles: tuple[str, ...] = ("source",)  # roles of the clips to train on
    collections: tuple[Collection, ...] = ()  # more clips, in addition to the manifest
    noise_labels: tuple[str, ...] = ()  # labels of noise; all other labels are sources
    noise_roles: tuple[str, ...] = ()  # roles of noise, with any label
    window_seconds: float = 5.0
    balance: Literal["label", "clip"] = "label"  # unit that is drawn equally often
    held_out_splits: tuple[str, ...] = ("held-out",)  # splits that are never trained on
    held_out_share: float = 0.05  # share of all clips, chosen by name, if no clip is in these splits


@dataclass(frozen=True)
class MixingConfig:
    """The mixtures of sources and noise."""

    snr_db: tuple[float, ...] = (0.0,)  # source over noise, in dB: one value, a list, or the ends of a range
    draw: Literal["choice", "uniform"] = "choice"  # one of the list, or any value between the two ends


@dataclass(frozen=True)
class SpecAugmentConfig:
    """Masks on the log-mel spectrum of mixtures; a width is drawn from 0 to the maximum for each clip and mask."""

    time_masks: int = 0
    time_width: int = 40  # frames
    freq_masks: int = 0
    freq_width: int = 12  # mel bands


@dataclass(frozen=True)
class ObjectiveConfig:
    """The losses of a run and their weights.

    `retain` is tagging and alignment to the mixture; `denoise` aligns to the clean sound alone; `tagging` and
    `alignment` keep one loss of `retain`.
    """

    kind: Literal["retain", "denoise", "tagging", "alignment"] = "retain"
    tagging_weight: float = 0.1
    alignment_weight: float = 1.0
    anchor_weight: float = 0.0  # weight of the distance of unmixed sounds to the teacher's embeddings
    level: Literal["clip", "frame", "token"] = "clip"  # aligned vectors: embeddings, or grids of `readout.layers`
    space: Literal["unit", "whitened", "pooled"] = "unit"  # stage of the read-out that is aligned
    clean_share: float = 0.5  # lambda: weight of the clean sound in the target
    share: Literal["fixed", "energy"] = "fixed"  # energy: lambda is the share of the mixture's energy


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, linear warm-up, cosine to zero."""

    steps: int = 400
    batch: int = 24  # mixtures per step, over all processes
    accumulate: int = 1  # parts into which a process splits its share of a batch
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 40
    clip_norm: float = 1.0
    ema_decay: float = (
        0.0  # decay of the moving average of the encoder's weights, which is saved at the end; 0: no average
    )


@dataclass(frozen=True)
class LoopConfig:
    """The device, the precision, measurements and checkpoints."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = (
        "float32"  # precision of the encoders' layers; everything else is float32
    )
    workers: int = 0  # processes that load batches in advance; 0: the training process loads them
    evaluate_steps: int = 50  # steps between measurements on held-out mixtures; 0: no measurements
    held_out_mixtures: int = 192
    patience: int = 0  # measurements without improvement after which a run stops; 0: no early stop
    checkpoint_steps: int = 200  # steps between checkpoints; 0: only at the end
    keep_checkpoints: int = 2


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    seed: int = 0
    threads: int = 1  # CPU threads of torch; more threads than idle cores are much slower
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
    """Read a TOML file and apply `key=value` overrides, as in `optim.steps=100`.

    Raises:
        ConfigError: no such file, not TOML, an unknown key (the message names the nearest key), or a value of the
            wrong type.
    """
    return _with(read_toml(path), overrides)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """Apply `key=value` overrides to a config. Raises `ConfigError` as `load_config` does."""
    return _with(to_table(config), overrides)


def differences(one: Config, other: Config) -> Iterator[tuple[str, Any, Any]]:
    """Yield the key and both values of each difference between two configs."""
    first, second = (dict(_leaves(to_table(config), "")) for config in (one, other))
    return ((key, first[key], second[key]) for key in first if first[key] != second[key])


def from_table(table: Mapping[str, Any]) -> Config:
    """Create a config from nested tables of changed values. Raises `ConfigError` as `load_config` does."""
    return from_tables(Config, table)


def to_table(config: Config) -> dict[str, Any]:
    """Return the whole config as nested tables, which `from_table` reads."""
    return dataclasses.asdict(config)


def check_config(config: Config) -> None:
    """Raise `ConfigError` if values of a config cannot be used, alone or together."""
    if config.loop.keep_checkpoints < 1:
        raise ConfigError(f"`loop.keep_checkpoints` must be at least 1, not {config.loop.keep_checkpoints}.")
    if config.optim.batch < 1:
        raise ConfigError(f"`optim.batch` must be at least 1, not {config.optim.batch}.")
    if not 0 <= config.optim.ema_decay < 1:
        raise ConfigError(f"`optim.ema_decay` must be at least 0 and below 1, not {config.optim.ema_decay:g}.")
    if not config.teacher.is_copy and config.objective.space != "unit":
        raise ConfigError(
            f"`objective.space` is {config.objective.space}, but only unit embeddings of two encoders can be compared: "
            "with a teacher of another kind it must be unit."
        )
    if not config.teacher.is_copy and config.objective.level != "clip":
        raise ConfigError(
            f"`objective.level` is {config.objective.level}, but the grids of two encoders differ in shape: with a "
            "teacher of another kind it must be clip."
        )


def _with(table: dict[str, Any], overrides: Sequence[str]) -> Config:
    apply_overrides(table, overrides)
    return from_table(table)


def _leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
