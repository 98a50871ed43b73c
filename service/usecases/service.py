"""Hold what lives as long as the process (`Service`) and what lives as long as one request (`Call`)."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, Self, TypeVar

from service.audio.decode import AudioLimits
from service.audio.decoder import Decoder
from service.audio.processes import DecoderPool
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
from service.usecases.admission import Admission
from service.usecases.authenticate import Authenticator
from service.usecases.job_signals import JobSignals

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """One running service, independent of the protocol that reaches it."""

    settings: Settings
    encoders: Encoders
    decoder: Decoder
    store: Store
    score_buffer: ScoreBuffer
    banks: BankCache
    metrics: Metrics
    admission: Admission
    authenticator: Authenticator
    job_signals: JobSignals

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Load the bundles, start the decoders and open the store.

        Raises:
            BundleError, DeviceError: the encoder cannot be used.
            ForkServerError: no decoder can be started.
            OSError, OffkeyError: the data folder cannot be used.
            OpenToNetworkError: there is no key, and other computers could reach the service.
        """
        encoders = Encoders.open(settings)
        limits = DecodeLimits(
            _audio_limits(settings), settings.limits.max_body_bytes, settings.limits.max_decode_cpu_seconds
        )
        with ExitStack() as undo:
            workers = DecoderPool(limits, wall_seconds=settings.limits.max_decode_seconds)
            undo.callback(workers.close)
            store = Store.open(settings.data_dir)
            undo.callback(store.close)
            workers.check()
            metrics = Metrics()
            admission = Admission.create(settings.workers or encoders.current.workers, settings.limits.queue_limit)
            authenticator = Authenticator(settings, store, admission.auth_pool)
            undo.pop_all()
        banks = BankCache(
            CalibrationCache(settings.data_dir / "runtime" / "calibrations"),
            exact_limit=settings.limits.exact_limit,
            max_bytes=settings.bank_cache_mb * 2**20,
            backend=settings.backend,
            coreset_windows=settings.coreset_windows,
        )
        metrics.watch_decoders(workers.lost, lambda: workers.peak_bytes)
        metrics.watch_jobs(store.jobs.states)
        metrics.watch_pools(admission.by_name)
        return cls(
            settings=settings,
            encoders=encoders,
            decoder=Decoder(workers),
            store=store,
            score_buffer=ScoreBuffer(store.scores),
            banks=banks,
            metrics=metrics,
            admission=admission,
            authenticator=authenticator,
            job_signals=JobSignals(),
        )

    def close(self) -> None:
        """Close what `open` opened."""
        self.decoder.pool.close()
        self.score_buffer.close()
        self.store.close()
        for encoder in self.encoders:
            encoder.close()

    def call(self, caller: Caller, stages: Stages | None = None) -> "Call":
        """Start one request of a caller. `stages` times it; None starts a new timer."""
        return Call(self, caller, stages or Stages(self.metrics.stage), self.store.by(caller))

    @property
    def workers(self) -> int:
        """Number of requests that are worked on at once."""
        return self.settings.workers or self.encoders.current.workers

    @property
    def audio_limits(self) -> AudioLimits:
        """Limits of one clip."""
        return _audio_limits(self.settings)

    @property
    def bank_limits(self) -> BankLimits:
        """Limits of one bank."""
        return BankLimits(self.settings.limits.max_clips_per_machine, self.settings.limits.max_windows_per_machine)


@dataclass(frozen=True)
class Call:
    """One request, whichever protocol it came by.

    Attributes:
        service: the running service.
        caller: sender of the request.
        stages: timer of the request.
        store: the store, restricted to what the caller may do; the audit log names the caller.
    """

    service: Service
    caller: Caller
    stages: Stages
    store: Store

    async def run(self, usecase: "Callable[Concatenate[Call, P], T]", *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a use case on the work pool."""
        return await self.service.admission.work_pool.run(usecase, self, *args, **kwargs)

    async def run_light(self, usecase: "Callable[Concatenate[Call, P], T]", *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a use case that only reads a page of the store on the light pool."""
        return await self.service.admission.light_pool.run(usecase, self, *args, **kwargs)

    def bank(self, record: MachineRecord, fresh_enough: Callable[[Bank], bool] | None = None) -> Bank:
        """Return the bank of a machine at the record's generation or newer.

        Args:
            record: the machine.
            fresh_enough: whether an older cached bank may be used instead.

        Raises:
            OffkeyError: the bank is empty, too small, or of an embedding space that no served bundle produces.
        """
        encoders, banks = self.service.encoders, self.service.banks
        encoders.of(record.embedding_space_id)  # refused before a bank is built that nothing can be compared with
        bank = banks.get(self.store, record.machine_key, record.generation, fresh_enough)
        self.encoder_of(bank)
        return bank

    def encoder_of(self, bank: Bank) -> Encoder:
        """Return the encoder that produced a bank. A bank may change its space after the machine's record was read.

        Raises:
            OffkeyError: no served bundle produced it.
        """
        return self.service.encoders.of(bank.embedding_space_id)


def _audio_limits(settings: Settings) -> AudioLimits:
    return AudioLimits(max_seconds=settings.limits.max_clip_seconds)
