"""Decoding in child processes: a file that crashes, blocks or exhausts a decoder affects only its own request.

The service has a `DecoderPool` (pool.py). The pool starts one fork server (fork_server.py): a small single-threaded
process that has imported only what decoding needs. The fork server forks workers (worker.py). A fork takes milliseconds
and shares most memory. messages.py defines the messages between the three.
"""

from service.audio.processes.messages import OVERHEAD_BYTES
from service.audio.processes.pool import DecoderPool, ForkServerError

__all__ = ["OVERHEAD_BYTES", "DecoderPool", "ForkServerError"]
