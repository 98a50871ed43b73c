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

import service.domain
from service.bank.calibration import Calibration
from service.bank.frozen import freeze, thaw
from service.bank.rows import BankRows

logger = logging.getLogger(__name__)

_WORTH_SECONDS = 0.02  # what is learned faster is not kept
_DIGEST = hashlib.sha256


class KeptCalibrations:
    """A folder with a file for each machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, machine_key: int, rows: BankRows, backend: str, coreset_windows: int) -> Calibration:
        """The calibration of these rows, found or made. Raises as `Calibration.fit` does."""
        file = self._file(machine_key)
        of_rows = _fingerprint(rows, backend, coreset_windows)
        found = _read(file, of_rows)
        if found is None:
            start = time.perf_counter()
            found = Calibration.fit(rows, backend, coreset_windows)
            if time.perf_counter() - start > _WORTH_SECONDS:
                _write(file, of_rows, found)
        return found

    def forget(self, machine_key: int) -> None:
        """Remove what is kept of a machine that was deleted."""
        try:
            self._file(machine_key).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("a calibration that nobody needs cannot be removed: %s", error)

    def _file(self, machine_key: int) -> Path:
        return self._folder / f"{machine_key}.calibration"


def _read(file: Path, of_rows: bytes) -> Calibration | None:
    try:
        with file.open("rb") as kept:
            if kept.read(len(of_rows)) != of_rows:
                return None
            digest, data = kept.read(_DIGEST().digest_size), kept.read()
        if _DIGEST(data).digest() != digest:
            raise ValueError("its checksum differs")
        found = thaw(data)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is wrong with it, it can be made anew
        logger.warning("the calibration in %s cannot be used and is made anew: %s", file, error)
        return None
    return found if isinstance(found, Calibration) else None


def _write(file: Path, of_rows: bytes, found: Calibration) -> None:
    part = file.with_suffix(".part")
    try:
        data = freeze(found)
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
    said = [backend, coreset_windows, rows.vectors.shape, rows.domains, len(rows.conditions), sorted(rows.spectrograms)]
    found.update(repr(said).encode())
    for array in (
        rows.vectors,
        *(np.unique(labels, return_inverse=True)[1] for labels in (rows.clips, rows.recordings)),
    ):
        found.update(np.ascontiguousarray(array).data)
    return found.digest()


@cache
def _code() -> bytes:
    """What learns and what is learned: with other code, it is learned again."""
    found = _DIGEST()
    learns = Path(__file__).with_name("calibration.py")
    for file in (learns, *sorted(Path(service.domain.__file__).parent.rglob("*.py"))):
        found.update(file.read_bytes())
    return found.digest()
