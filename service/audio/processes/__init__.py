"""Decode in child processes: a file that crashes, hangs or swells a decoder costs only its own answer.

The service holds `Decoders` (pool.py). It starts one fork server (fork_server.py): a small single-threaded process that
has imported only what decoding needs. The fork server forks a decoder (worker.py) on request. A fork takes milliseconds
and shares most memory. messages.py defines what they send to each other.
"""

from service.audio.processes.messages import OVERHEAD_BYTES
from service.audio.processes.pool import Decoders, ForkServerError

__all__ = ["OVERHEAD_BYTES", "Decoders", "ForkServerError"]
