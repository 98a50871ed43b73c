"""How the graph of a bundle is run: on which device, over how many threads, alone or in batches."""

from service.encoder.batching import Batches
from service.encoder.per_thread import PerThreadRunner
from service.encoder.threads import SINGLE, Layout, faint_noise, find_thread_counts
from service.encoder.runner import Runs
from service.encoder.session import DeviceError, open_session, runs_on_cpu

__all__ = [
    "SINGLE",
    "Batches",
    "Callers",
    "DeviceError",
    "Layout",
    "Runs",
    "faint_noise",
    "find_layout",
    "open_session",
    "runs_on_cpu",
]
