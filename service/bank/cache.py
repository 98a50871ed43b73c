"""The banks in memory.

A bank never changes. The store is the truth; a new bank is built when the store's generation has moved on, and the
reference is swapped, so that readers never see a half-built one.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

from service.bank.bank import Bank
from service.bank.calibration import Calibration
from service.bank.calibration_cache import CalibrationCache
from service.bank.rows import BankRows, Known
from service.domain.backends import DEFAULT_BACKEND


class BankCache:
    """The banks that were asked for last, each as new as the store when it was asked for."""

    def __init__(
        self,
        *,
        exact_limit: int,
        max_values: int,
        backend: str = DEFAULT_BACKEND,
        coreset_windows: int = 0,
        half: bool = False,
        kept: CalibrationCache | None = None,
    ) -> None:
        """Hold banks of `max_values` values together, or a single one that is larger.

        `half` keeps their embeddings in 16 bits. `kept` is where calibrations of banks that left memory are found;
        None: each is made anew.
        """
        self._exact_limit = exact_limit
        self._backend = backend
        self._coreset_windows = coreset_windows
        self._max_values = max_values
        self._half = half
        self._kept = kept
        self._banks: OrderedDict[int, Bank] = OrderedDict()  # least recently used first
        self._values = 0  # of all of them: a sum over hundreds for each that comes would take longer than to read it
        self._building: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()  # of both

    def get(
        self,
        machine_key: int,
        generation: int,
        load: Callable[[Known], BankRows],
        enough: Callable[[Bank], bool] = lambda _: False,
    ) -> Bank:
        """Return a bank at `generation` or newer, or an older one at hand that is `enough`.

        Args:
            machine_key: the store's key of the machine, never used again for another one.
            generation: the store's generation of the machine when the request began.
            load: reads the machine's rows from the store; called only if the bank at hand will not do. It is told how
                to find out whether what is only learned from need be read.
            enough: whether a bank that is behind will do all the same.
        """
        with self._lock:
            bank = self._fresh(machine_key, generation, enough)
            if bank is not None:
                return bank
            building = self._building.setdefault(machine_key, threading.Lock())
        with building:  # one build per machine; the others wait for it and use what it made
            with self._lock:
                bank = self._fresh(machine_key, generation, enough)
            if bank is None:
                bank = self._build(machine_key, building, load)
            return bank

    def at_hand(self, machine_key: int) -> Bank | None:
        """The bank of a machine that was built last, be it a generation or more behind; None: none is in memory."""
        with self._lock:
            return self._banks.get(machine_key)

    def forget(self, machine_key: int) -> None:
        """Drop the bank of a deleted machine, also one that is being built."""
        with self._lock:
            self._drop(machine_key)
            self._building.pop(machine_key, None)
        if self._kept is not None:
            self._kept.forget(machine_key)

    def _fresh(self, machine_key: int, generation: int, enough: Callable[[Bank], bool]) -> Bank | None:
        bank = self._banks.get(machine_key)
        if bank is None or (bank.generation < generation and not enough(bank)):
            return None
        self._banks.move_to_end(machine_key)
        return bank

    def _build(self, machine_key: int, building: threading.Lock, load: Callable[[Known], BankRows]) -> Bank:
        built: Bank | None = None
        try:
            rows, calibration = self._loaded(machine_key, load)
            built = Bank.of(rows, calibration, exact_limit=self._exact_limit, half=self._half)
            return built
        finally:
            with self._lock:
                # Another lock or none: the machine was forgotten meanwhile, and nobody would drop its bank.
                if self._building.get(machine_key) is building:
                    if built is None:
                        del self._building[machine_key]
                    else:
                        self._keep(machine_key, built)

    def _loaded(self, machine_key: int, load: Callable[[Known], BankRows]) -> tuple[BankRows, Calibration]:
        if self._kept is None:
            rows = load(lambda _: False)
            return rows, Calibration.fit(rows, self._backend, self._coreset_windows)
        kept, found = self._kept, None

        def known(rows: BankRows) -> bool:
            nonlocal found
            found = kept.find(machine_key, rows, self._backend, self._coreset_windows)
            return found is not None

        rows = load(known)
        return rows, found or kept.learn(machine_key, rows, self._backend, self._coreset_windows)

    def _keep(self, machine_key: int, bank: Bank) -> None:
        self._drop(machine_key)
        self._banks[machine_key] = bank
        self._values += bank.values
        while self._values > self._max_values and len(self._banks) > 1:
            self._drop(next(iter(self._banks)))

    def _drop(self, machine_key: int) -> None:
        gone = self._banks.pop(machine_key, None)
        self._values -= gone.values if gone else 0
