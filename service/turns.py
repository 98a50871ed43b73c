"""Turns at short arithmetic over arrays, so that threads do not pass Python's lock to and fro.

numpy lets go of Python's lock in nearly every call and takes it back behind it. Where several threads go through a
dozen such calls at once, they hand it to each other at every one, and each hand-over puts a thread to sleep and wakes
another. A thread that has the turn goes through all of them in one go, while the others run the model or wait.
"""

import threading

# Held for a fraction of a millisecond, by nobody who waits for anything: not over a run of the model, a search in a
# bank, the disk or a child process.
turn = threading.Lock()
