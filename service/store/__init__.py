"""The store: the only truth about machines and their banks."""

from service.store.audit import Action, AuditRecord
from service.store.idempotency import AnsweredError, Once
from service.store.keys import KeyRecord
from service.store.records import BankChangedError, BankLimits, ClipRecord, Enrolled, MachineRecord, NewClip
from service.store.store import Store

__all__ = [
    "Action",
    "AnsweredError",
    "AuditRecord",
    "BankChangedError",
    "BankLimits",
    "ClipRecord",
    "Enrolled",
    "KeyRecord",
    "MachineRecord",
    "NewClip",
    "Once",
    "Store",
]
