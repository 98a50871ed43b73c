"""The store: the only truth about machines and their banks."""

from service.store.records import BankLimits, ClipRecord, Enrolled, MachineRecord, NewClip
from service.store.store import BankChangedError, Store

__all__ = ["BankChangedError", "BankLimits", "ClipRecord", "Enrolled", "MachineRecord", "NewClip", "Store"]
