"""Store machines and their banks. The only source of truth."""

from service.bank.rows import BankChangedError
from service.store.audit import Action, AuditRecord
from service.store.idempotency import IdempotencyKey
from service.store.keys import KeyRecord
from service.store.records import BankLimits, ClipRecord, Enrolled, MachineRecord, NewClip
from service.store.store import Store
from service.store.transaction import Transaction

__all__ = [
    "Action",
    "AuditRecord",
    "BankChangedError",
    "BankLimits",
    "ClipRecord",
    "Enrolled",
    "IdempotencyKey",
    "KeyRecord",
    "MachineRecord",
    "NewClip",
    "Store",
    "Transaction",
]
