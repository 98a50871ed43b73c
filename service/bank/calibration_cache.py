"""Cache of calibrations on disk, so the first score after a start or an eviction does not wait for a fit.

A calibration can always be fitted again. A file that is damaged, absent or for other rows costs time, and never changes
a score. Several processes may share the folder.
"""

import hashlib
import logging
import struct
import time
import zlib
from pathlib import Path

import numpy as np

from offkey.atomic import write_bytes
from service import __version__
from service.bank.calibration import Calibration
from service.bank.rows import BankRows, CalibrationRows
from service.bank.serialization import dump, load

logger = logging.getLogger(__name__)

# Raise it with every change of what a fit computes from the same rows. The package version does so for a release.
CALIBRATION_VERSION = 2

_MIN_FIT_SECONDS = 0.02  # a faster fit is not written
_HEAD = struct.Struct("<32sI")  # fingerprint of the rows, CRC-32 of the rest of the file


class CalibrationCache:
    """Folder with one file per machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, machine_key: int, rows: BankRows, backend: str, coreset_windows: int) -> Calibration | None:
        """Return the calibration of these rows if it is cached, else None."""
        file = self._file(machine_key)
        try:
            with file.open("rb", buffering=0) as cached:  # a buffer would copy the data once more
                fingerprint, checksum = _HEAD.unpack(cached.read(_HEAD.size))
                if fingerprint != _fingerprint(rows, backend, coreset_windows):
                    return None
                data = cached.read()
            if zlib.crc32(data) != checksum:
                raise ValueError("the checksum differs")
            return load(data)
        except FileNotFoundError:
            return None
        except Exception as error:  # any damage is repaired by a fit
            logger.warning("the calibration in %s cannot be read and is fitted again: %s", file, error)
            return None

    def fit(
        self,
        machine_key: int,
        rows: BankRows,
        calibration_rows: CalibrationRows,
        backend: str,
        coreset_windows: int,
    ) -> Calibration:
        """Fit a calibration, and write it to the cache if that took long. Raises as `Calibration.fit` does."""
        start = time.perf_counter()
        calibration = Calibration.fit(rows, calibration_rows, backend, coreset_windows)
        if time.perf_counter() - start > _MIN_FIT_SECONDS:
            data = dump(calibration)
            file = self._file(machine_key)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                head = _HEAD.pack(_fingerprint(rows, backend, coreset_windows), zlib.crc32(data))
                write_bytes(file, head + data)
            except OSError as error:  # for example a full disk or a read-only volume
                logger.warning("the calibration cannot be cached in %s: %s", file, error)
        return calibration

    def evict(self, machine_key: int) -> None:
        """Delete the file of a machine."""
        try:
            self._file(machine_key).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the calibration of a deleted machine cannot be removed: %s", error)

    def _file(self, machine_key: int) -> Path:
        return self._folder / f"{machine_key}.calibration"


def _fingerprint(rows: BankRows, backend: str, coreset_windows: int) -> bytes:
    """Hash everything that a calibration depends on. Clip and recording numbers count only as groups of windows.

    Acoustics, spectrograms, slices and pieces are stored together with the embedding and never change without it, so
    only their presence is hashed. Vectors are hashed by CRC-32, as in the store: SHA-256 takes three times as long,
    5.5 ms for 1,000 windows of 2,048 values.
    """
    domains = [domain.value for domain in rows.domains]
    key = [CALIBRATION_VERSION, __version__, backend, coreset_windows, rows.vectors.shape, domains]
    crc = zlib.crc32(np.ascontiguousarray(rows.vectors).data)
    found = hashlib.sha256(repr([*key, crc, sorted(rows.has_spectrogram), sorted(rows.has_slices)]).encode())
    for array in (
        rows.ends,
        np.isin(rows.clips, list(rows.measured)),
        np.array([rows.pieces.get(clip, 0) for clip in rows.clips.tolist()]),
        *(np.unique(numbers, return_inverse=True)[1] for numbers in (rows.clips, rows.recordings)),
    ):
        found.update(np.ascontiguousarray(array).data)
    return found.digest()
