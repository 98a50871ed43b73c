"""The store: the only truth about machines and their banks."""

from service.store.answered import AnsweredError, Once
from service.store.records import BankLimits, ClipRecord, Enrolled, MachineRecord, NewClip
from service.store.store import BankChangedError, Store

__all__ = [
    "AnsweredError",
    "BankChangedError",
    "BankLimits",
    "ClipRecord",
    "Enrolled",
    "MachineRecord",
    "NewClip",
    "Once",
    "Store",
]
