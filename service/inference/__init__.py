"""How the graph of a bundle is run: on which device, over how many threads, alone or in batches."""

from service.inference.batches import Batches
from service.inference.callers import Callers
from service.inference.layout import SINGLE, Layout, faint_noise, find_layout
from service.inference.runs import Runs
from service.inference.session import DeviceError, open_session, runs_on_cpu

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
