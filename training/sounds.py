"""The audio of a run: which windows, in which batches."""

from dataclasses import dataclass
from pathlib import Path

from training.config import Config, ConfigError
from training.data.batches import Batches
from training.data.catalog import Catalog, Clip, fingerprint
from training.data.layouts import read_collections
from training.data.layouts.collection import Collection
from training.data.shard import Shard
from training.data.windows import AudioCache, Window


def read_catalog(config: Config) -> Catalog:
    """All clips that a config names: those of the manifest and of the collections. Raises `DataError`."""
    data = config.data
    manifest = (Collection(path=data.manifest),) if data.manifest or not data.collections else ()
    return read_collections((*manifest, *data.collections))


@dataclass(frozen=True)
class Sounds:
    """Sources and noises apart, cut into windows of one length."""

    audio: AudioCache
    sources: tuple[Window, ...]
    noises: tuple[Window, ...]

    @classmethod
    def load(cls, config: Config, sample_rate: int) -> "Sounds":
        """Select, decode once and cut. Raises `DataError` and `ConfigError`."""
        data = config.data
        if not data.noise_labels and not data.noise_roles:
            raise ConfigError("`data.noise_labels` and `data.noise_roles` are empty: say what is noise.")
        catalog = read_catalog(config)
        sources = catalog.select(roles=data.roles, without=data.noise_labels, permissive=data.permissive)
        noises: tuple[Clip, ...] = ()
        if data.noise_labels:
            noises += catalog.select(roles=data.roles, labels=data.noise_labels, permissive=data.permissive)
        if data.noise_roles:
            noises += catalog.select(roles=data.noise_roles, permissive=data.permissive)
        audio = AudioCache(Path(data.cache), sample_rate)
        return cls(audio, audio.windows(sources, data.window_seconds), audio.windows(noises, data.window_seconds))

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Every clip that is heard, once, in order of its name."""
        return tuple(sorted({window.clip for window in (*self.sources, *self.noises)}, key=lambda clip: clip.name))

    @property
    def fingerprint(self) -> str:
        """The same for the same clips under the same labels."""
        return fingerprint(self.clips, self.audio.contents)

    def batches(self, config: Config, shard: Shard) -> Batches:
        """Batch n of this process, for every n."""
        return Batches(self.audio, self.sources, self.noises, size=config.optim.batch, seed=config.seed, shard=shard)
