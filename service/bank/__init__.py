"""The memory bank of a machine: its enrolled normal embeddings, searchable and calibrated."""

from service.bank.cache import BankCache
from service.bank.calibration import Calibration
from service.bank.calibration_cache import CalibrationCache
from service.bank.bank import Bank, Neighbor
from service.bank.rows import BankRows, Known
from service.bank.unread import Unread

__all__ = ["BankRows", "Banks", "Calibration", "KeptCalibrations", "Known", "MemoryBank", "Neighbor", "Unread"]
