"""The store: the only truth about machines and their banks."""

from service.store.records import ClipRecord, Enrolled, MachineRecord, NewClip
from service.store.store import Store

__all__ = ["ClipRecord", "Enrolled", "MachineRecord", "NewClip", "Store"]
