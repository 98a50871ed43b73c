"""Decoding in child processes: a file that crashes, hangs or swells a decoder costs its own answer and no other.

`Decoders` (pool.py) is what the service holds. It has one *nursery* (nursery.py), a small process with one thread that
has imported what decoding needs and nothing else, and forks a decoder (child.py) whenever one is wanted: in
milliseconds, and most of its memory shared. wire.py is what they say to each other.
"""

from service.audio.processes.pool import Decoders, ForkServerError
from service.audio.processes.messages import OVERHEAD_BYTES

__all__ = ["OVERHEAD_BYTES", "Decoders", "NurseryError"]
