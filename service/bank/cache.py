"""Cache of banks in memory.

The store is the source of truth: a cached bank is used only at the generation that the caller requires, or a newer one.
A bank is immutable, and a new one replaces it under a lock, so readers never see a partly built bank.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

from service.bank.bank import Bank
from service.bank.calibration import Calibration
from service.bank.calibration_cache import CalibrationCache
from service.bank.rows import BankChangedError, BankRows, BankSource
from service.domain.backends import DEFAULT_BACKEND


class BankCache:
    """Most recently used banks, by machine. Safe to call from many threads at once."""

    def __init__(
        self,
        calibrations: CalibrationCache | None = None,
        *,
        exact_limit: int,
        max_bytes: int,
        backend: str = DEFAULT_BACKEND,
        coreset_windows: int = 0,
    ) -> None:
        """Create an empty cache.

        Args:
            calibrations: cache of calibrations on disk, None to fit one for each bank.
            exact_limit: number of windows of a domain up to which search is exact.
            max_bytes: memory of all banks together, in bytes. A single bank may be larger.
            backend: name in `BACKENDS`.
            coreset_windows: largest number of windows of a domain to compare with, 0 for all.
        """
        self._calibrations = calibrations
        self._exact_limit = exact_limit
        self._max_bytes = max_bytes
        self._backend = backend
        self._coreset_windows = coreset_windows
        self._banks: OrderedDict[int, Bank] = OrderedDict()  # least recently used first
        self._nbytes = 0  # sum over all banks; adding up hundreds per insertion takes longer than reading a bank
        self._builds: dict[int, threading.Event] = {}  # set when the build has ended
        self._lock = threading.Lock()  # guards the three above

    def get(
        self,
        source: BankSource,
        machine_key: int,
        generation: int,
        fresh_enough: Callable[[Bank], bool] | None = None,
    ) -> Bank:
        """Return the cached bank at `generation` or newer, or build one. One thread builds a machine's bank at a time.

        Args:
            source: store to read from if no cached bank is fresh.
            machine_key: key of the machine, which the store never uses for another one.
            generation: generation of the machine when the request began.
            fresh_enough: accepts an older cached bank, None to accept none.

        Raises:
            OffkeyError: the bank is empty or too small.
        """
        while True:
            with self._lock:
                bank = self._banks.get(machine_key)
                if bank is not None and (
                    bank.generation >= generation or (fresh_enough is not None and fresh_enough(bank))
                ):
                    self._banks.move_to_end(machine_key)
                    return bank
                running = self._builds.get(machine_key)
                if running is None:
                    mine = self._builds[machine_key] = threading.Event()
            if running is None:
                return self._build(source, machine_key, mine)
            running.wait()

    def cached(self, machine_key: int) -> Bank | None:
        """Return the cached bank of a machine at any generation, or None."""
        with self._lock:
            return self._banks.get(machine_key)

    def evict(self, machine_key: int) -> None:
        """Free the memory and disk space of a machine's bank. A bank that is being built is not cached either."""
        with self._lock:
            self._remove(machine_key)
            self._builds.pop(machine_key, None)
        if self._calibrations is not None:
            self._calibrations.evict(machine_key)

    def _build(self, source: BankSource, machine_key: int, mine: threading.Event) -> Bank:
        bank: Bank | None = None
        try:
            rows, calibration = self._read(source, machine_key)
            bank = Bank.of(rows, calibration, exact_limit=self._exact_limit)
            return bank
        finally:
            with self._lock:
                # Another event or none means that the machine was evicted during the build.
                if self._builds.get(machine_key) is mine:
                    del self._builds[machine_key]
                    if bank is not None:
                        self._add(machine_key, bank)
            mine.set()

    def _read(self, source: BankSource, machine_key: int) -> tuple[BankRows, Calibration]:
        options = self._backend, self._coreset_windows
        rows = source.bank_rows(machine_key)
        if self._calibrations is not None:
            cached = self._calibrations.get(machine_key, rows, *options)
            if cached is not None:
                return rows, cached
        try:
            calibration_rows = source.calibration_rows(machine_key, rows.generation)
        except BankChangedError:
            # Not two reads again: a bank that is changed without pause would never be loaded.
            rows, calibration_rows = source.all_rows(machine_key)
        if self._calibrations is None:
            return rows, Calibration.fit(rows, calibration_rows, *options)
        return rows, self._calibrations.fit(machine_key, rows, calibration_rows, *options)

    def _add(self, machine_key: int, bank: Bank) -> None:
        self._remove(machine_key)
        self._banks[machine_key] = bank
        self._nbytes += bank.nbytes
        while self._nbytes > self._max_bytes and len(self._banks) > 1:
            self._remove(next(iter(self._banks)))

    def _remove(self, machine_key: int) -> None:
        removed = self._banks.pop(machine_key, None)
        self._nbytes -= removed.nbytes if removed else 0
