"""The memory bank of a machine: its enrolled normal embeddings, searchable and calibrated."""

from service.bank.banks import Banks
from service.bank.calibration import Calibration
from service.bank.kept import KeptCalibrations
from service.bank.memory import MemoryBank, Neighbor
from service.bank.rows import BankRows, Known
from service.bank.unread import Unread

__all__ = ["BankRows", "Banks", "Calibration", "KeptCalibrations", "Known", "MemoryBank", "Neighbor", "Unread"]
