"""Count the clips of every machine without the index through which a bank reads them."""

import threading

from sqlalchemy import Connection, func, select

from service.store.schema import clip, machine


class ClipCounts:
    """Caches one count of all clips, by machine and generation.

    A damaged index would hide clips, which no checksum of a clip reveals. Counting reads the clips of all machines, so
    a count for each bank would take longer the more machines there are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[int, tuple[int, int]] = {}  # generation and clips by machine

    def of(self, connection: Connection, machine_key: int, generation: int) -> int:
        """Return the number of clips of a machine at a generation, which the transaction must have read."""
        with self._lock:
            known = self._found.get(machine_key)
            if known is None or known[0] != generation:
                self._found = _count(connection)
            return self._found[machine_key][1]


def _count(connection: Connection) -> dict[int, tuple[int, int]]:
    unindexed = clip.c.machine_key + 0
    counted = connection.execute(select(unindexed, func.count()).group_by(unindexed))
    clips = {int(key): int(count) for key, count in counted}
    generations = connection.execute(select(machine.c.machine_key, machine.c.generation))
    return {key: (generation, clips.get(key, 0)) for key, generation in generations}
