"""The audio of a run: windows of sources and noises, and their batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.config import Config, ConfigError, DataConfig
from training.data.batches import Batches
from training.data.catalog import Catalog, Clip, DataError, choose, fingerprint
from training.data.layouts import read_collections
from training.data.layouts.collection import Collection
from training.data.shard import Shard
from training.data.windows import AudioCache, Window


def read_catalog(config: Config) -> Catalog:
    """Read the clips of a config, from its manifest and its collections. Raises `DataError`."""
    data = config.data
    manifest = (Collection(path=data.manifest),) if data.manifest or not data.collections else ()
    return read_collections((*manifest, *data.collections))


@dataclass(frozen=True)
class Sounds:
    """Sources and noises, cut into windows of one length."""

    audio: AudioCache
    sources: tuple[Window, ...]
    noises: tuple[Window, ...]
    held_out_sources: tuple[Window, ...] = ()  # never trained on
    held_out_noises: tuple[Window, ...] = ()  # never trained on

    @classmethod
    def load(cls, config: Config, sample_rate: int) -> "Sounds":
        """Select clips, decode them and cut them into windows. Raises `DataError` and `ConfigError`."""
        data = config.data
        if not data.noise_labels and not data.noise_roles:
            raise ConfigError("`data.noise_labels` and `data.noise_roles` are empty. Set one of them.")
        catalog = read_catalog(config)
        sources = catalog.select(roles=data.roles, without=data.noise_labels, permissive=data.permissive)
        noises: tuple[Clip, ...] = ()
        if data.noise_labels:
            noises += catalog.select(roles=data.roles, labels=data.noise_labels, permissive=data.permissive)
        if data.noise_roles:
            noises += catalog.select(roles=data.noise_roles, permissive=data.permissive)
        audio = AudioCache(Path(data.cache), sample_rate)
        kinds = [(audio.windows(clips, data.window_seconds), held_out(clips, data)) for clips in (sources, noises)]
        drawn = [tuple(window for window in windows if window.clip not in held) for windows, held in kinds]
        trained_on = {window.content for windows in drawn for window in windows}
        rest = [
            tuple(window for window in windows if window.clip in held and window.content not in trained_on)
            for windows, held in kinds
        ]
        for what, windows in zip(("source", "noise"), drawn, strict=True):
            if not windows:
                raise DataError(
                    f"Every {what} is held out (`data.held_out_splits` is {', '.join(data.held_out_splits)}), so "
                    "nothing is left for training."
                )
        return cls(audio, *drawn, *rest)

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Clips that are trained on, sorted by name."""
        return tuple(sorted({window.clip for window in (*self.sources, *self.noises)}, key=lambda clip: clip.name))

    @property
    def held_out_clips(self) -> tuple[Clip, ...]:
        """Clips that are only measured on, sorted by name."""
        windows = (*self.held_out_sources, *self.held_out_noises)
        return tuple(sorted({window.clip for window in windows}, key=lambda clip: clip.name))

    @property
    def fingerprint(self) -> str:
        """Hash of the clips and their labels."""
        return fingerprint(self.clips, self.audio.contents)

    def batches(self, config: Config, shard: Shard) -> Batches:
        """Create the batches of this process."""
        return Batches(
            self.audio,
            self.sources,
            self.noises,
            size=config.optim.batch,
            seed=config.seed,
            balance=config.data.balance,
            shard=shard,
        )


def held_out(clips: Sequence[Clip], data: DataConfig) -> frozenset[Clip]:
    """Choose the clips that are only measured on.

    These are the clips of `data.held_out_splits`. If no clip is in these splits, it is the share `data.held_out_share`,
    rounded down.
    """
    named = frozenset(clip for clip in clips if clip.split in data.held_out_splits)
    return named or choose(clips, data.held_out_share)
