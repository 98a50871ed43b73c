"""Everything that a use case works with."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self

from service.audio.decode import AudioLimits
from service.audio.processes import Decoders
from service.audio.processes.messages import DecodeLimits
from service.bank import Bank, BankCache, CalibrationCache
from service.domain.access import Caller
from service.encoder.encoder import Encoder
from service.encoder.encoders import Encoders
from service.settings import Settings
from service.store import BankLimits, MachineRecord, Store
from service.store.score_buffer import ScoreBuffer
from service.telemetry.metrics import Metrics
from service.telemetry.stages import Stages


@dataclass(frozen=True)
class Context:
    """The adapters of one running service."""

    settings: Settings
    encoders: Encoders
    decoders: Decoders
    store: Store
    score_buffer: ScoreBuffer
    banks: BankCache
    metrics: Metrics
    stages: Stages  # of the request

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Load the bundle and open the store.

        Raises:
            BundleError, DeviceError: the encoder cannot be used.
            NurseryError: no decoder can be started.
            OSError, OffkeyError: the data folder cannot be used.
        """
        encoders = Encoders.open(settings)
        decode_limits = DecodeLimits(_audio_limits(settings), settings.max_body_bytes, settings.max_decode_cpu_seconds)
        with ExitStack() as undo:
            decoders = Decoders(decode_limits, wall_seconds=settings.max_decode_seconds)
            undo.callback(decoders.close)
            store = Store.open(settings.data_dir)
            undo.callback(store.close)
            decoders.check()
            undo.pop_all()
        banks = BankCache(
            exact_limit=settings.exact_limit,
            max_values=settings.max_cached_values,
            backend=settings.backend,
            coreset_windows=settings.coreset_windows,
            half=settings.half_precision,
            kept=CalibrationCache(settings.data_dir / "runtime" / "calibrations"),
        )
        metrics = Metrics()
        metrics.watch_decoders(decoders.lost, lambda: decoders.peak_bytes)
        return cls(settings, encoders, decoders, store, ScoreBuffer(store.shift), banks, metrics, Stages(metrics.stage))

    def by(self, caller: Caller, stages: Stages | None = None) -> Self:
        """The same, for a caller: the store does what the caller's key allows, and writes down who did it.

        Args:
            caller: who asks.
            stages: where the time of the request is counted; None: of what is done without one.
        """
        return replace(self, store=self.store.by(caller), stages=stages or Stages(self.metrics.stage))

    def close(self) -> None:
        """Close what `open` opened."""
        self.decoders.close()
        self.score_buffer.close()
        self.store.close()
        for encoder in self.encoders:
            encoder.close()

    @property
    def workers(self) -> int:
        """Requests that are worked on at once."""
        return self.settings.workers or self.encoders.current.workers

    @property
    def audio_limits(self) -> AudioLimits:
        """What a clip may be."""
        return _audio_limits(self.settings)

    @property
    def bank_limits(self) -> BankLimits:
        """How large a bank may grow."""
        return BankLimits(self.settings.max_clips_per_machine, self.settings.max_windows_per_machine)

    def bank(self, record: MachineRecord, enough: Callable[[Bank], bool] = lambda _: False) -> Bank:
        """The bank of a machine, at the record's generation or newer, or one at hand that is `enough`.

        Raises:
            OffkeyError: it is empty, too small, or of an embedding space that no bundle at hand made.
        """
        self.encoders.of(record.embedding_space_id)  # before a bank is built that nobody can ask
        key = record.machine_key
        bank = self.banks.get(key, record.generation, lambda known: self.store.bank_rows(key, known), enough)
        self.encoder_of(bank)
        return bank

    def encoder_of(self, bank: Bank) -> Encoder:
        """The one that a bank was made with: what is held against the bank is embedded by it, whatever the record says.

        A bank may move to another space between the look at the machine and the look at its bank.

        Raises:
            OffkeyError: no bundle at hand made it.
        """
        return self.encoders.of(bank.embedding_space_id)


def _audio_limits(settings: Settings) -> AudioLimits:
    return AudioLimits(max_seconds=settings.max_clip_seconds)
