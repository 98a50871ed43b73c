"""Calibrations on disk, so that a machine that is scored after a while, or after a restart, need not wait for one.

They are derived: a file that is damaged, absent or of other rows costs time, and never an answer.
"""

import hashlib
import logging
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import service.domain
from service.bank.calibration import Calibration
from service.bank.rows import BankRows
from service.bank.serialization import dump, load
from service.domain.distance import Vectors

logger = logging.getLogger(__name__)

_WORTH_SECONDS = 0.02  # what is learned faster is not kept
_DIGEST = hashlib.sha256


class CalibrationCache:
    """A folder with a file for each machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, machine_key: int, rows: BankRows, backend: str, coreset_windows: int) -> Calibration | None:
        """The calibration of these rows, whose conditions and spectrograms may be unread; None: it is not kept."""
        file = self._file(machine_key)
        try:
            with file.open("rb", buffering=0) as kept:  # a buffer would have the rest copied once more
                if kept.read(_DIGEST().digest_size) != _fingerprint(rows, backend, coreset_windows):
                    return None
                digest, data = kept.read(_DIGEST().digest_size), kept.read()
            if _DIGEST(data).digest() != digest:
                raise ValueError("its checksum differs")
            found = load(data)
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever is wrong with it, it can be made anew
            logger.warning("the calibration in %s cannot be used and is made anew: %s", file, error)
            return None
        return found if isinstance(found, Calibration) else None

    def learn(self, machine_key: int, rows: BankRows, backend: str, coreset_windows: int) -> Calibration:
        """Make the calibration of these rows, and keep it if that took long. Raises as `Calibration.fit` does."""
        start = time.perf_counter()
        made = Calibration.fit(rows, backend, coreset_windows)
        if time.perf_counter() - start > _WORTH_SECONDS:
            _write(self._file(machine_key), _fingerprint(rows, backend, coreset_windows), made)
        return made

    def forget(self, machine_key: int) -> None:
        """Remove what is kept of a machine that was deleted."""
        try:
            self._file(machine_key).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("a calibration that nobody needs cannot be removed: %s", error)

    def _file(self, machine_key: int) -> Path:
        return self._folder / f"{machine_key}.calibration"


def _write(file: Path, of_rows: bytes, found: Calibration) -> None:
    part = file.with_suffix(".part")
    try:
        data = dump(found)
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(of_rows + _DIGEST(data).digest() + data)
        part.replace(file)
    except OSError as error:  # a full disk, a volume that is read only
        logger.warning("the calibration cannot be kept in %s: %s", file, error)
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _fingerprint(rows: BankRows, backend: str, coreset_windows: int) -> bytes:
    """Of all that a calibration depends on: of clips and recordings only which windows are of the same, in which order.

    What was measured of a clip is as new as its embedding.
    """
    found = _DIGEST(_code())
    domains = [domain.value for domain in rows.domains]
    said = [backend, coreset_windows, rows.vectors.shape, domains, len(rows.acoustics), sorted(rows.spectrograms)]
    found.update(repr(said).encode())
    for array in (
        _sums(rows.vectors),
        *(np.unique(labels, return_inverse=True)[1] for labels in (rows.clips, rows.recordings)),
    ):
        found.update(np.ascontiguousarray(array).data)
    return found.digest()


def _sums(vectors: Vectors) -> NDArray[np.uint64]:
    """64 bits of each vector `(n,)`: its values' bits as whole numbers, weighed and summed modulo 2**64.

    Vectors that differ have the same with a chance of 2**-32 at most, where only signs differ, and mostly of 2**-63. A
    digest of all bytes withstands who seeks such vectors; nobody does here, and it takes six times as long.
    """
    words = np.ascontiguousarray(vectors).view(np.uint32)
    weights = _weights(words.shape[1])
    sums: NDArray[np.uint64] = np.einsum("nw,w->n", words, weights, dtype=np.uint64, casting="safe")
    return sums


@cache
def _weights(count: int) -> NDArray[np.uint64]:
    """Odd ones `(count,)`, so that no bit is lost, as if by lot, the same in every process."""
    return np.random.Generator(np.random.PCG64(0)).integers(2**63, size=count, dtype=np.uint64) * 2 + 1


@cache
def _code() -> bytes:
    """What learns, what is learned and how it lies in a file: with other code, it is learned again."""
    found = _DIGEST()
    own = [Path(__file__).with_name(name) for name in ("calibration.py", "serialization.py", "calibration_cache.py")]
    for file in (*own, *sorted(Path(service.domain.__file__).parent.rglob("*.py"))):
        found.update(file.read_bytes())
    return found.digest()
