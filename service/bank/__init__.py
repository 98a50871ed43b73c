"""Memory banks: the enrolled embeddings of each machine, searchable and calibrated."""

from service.bank.bank import Bank, Neighbor
from service.bank.cache import BankCache
from service.bank.calibration import Calibration
from service.bank.calibration_cache import CalibrationCache
from service.bank.rows import BankChangedError, BankRows, BankSource, CalibrationRows

__all__ = [
    "Bank",
    "BankCache",
    "BankChangedError",
    "BankRows",
    "BankSource",
    "Calibration",
    "CalibrationCache",
    "CalibrationRows",
    "Neighbor",
]
