"""Hold the memory bank of a machine: its enrolled normal embeddings, searchable and calibrated."""

from service.bank.bank import Bank, Neighbor
from service.bank.cache import BankCache
from service.bank.calibration import Calibration
from service.bank.calibration_cache import CalibrationCache
from service.bank.rows import BankRows, Known
from service.bank.unread import Unread

__all__ = ["Bank", "BankCache", "BankRows", "Calibration", "CalibrationCache", "Known", "Neighbor", "Unread"]
