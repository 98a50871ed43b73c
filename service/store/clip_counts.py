"""How many clips every machine has, counted without the index that its clips are found by."""

import threading

from sqlalchemy import Connection, func, select

from service.store.schema import clip, machine


class ClipCounts:
    """A count of all clips, taken again when it does not know of a machine's generation.

    A damaged index would hide clips, which nothing in a clip tells. Counting reads through those of all machines: done
    for each bank that is read, it would cost the more the more machines there are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[int, tuple[int, int]] = {}  # by machine: generation, clips

    def of(self, connection: Connection, machine_key: int, generation: int) -> int:
        """The clips of a machine at its present generation, as the transaction sees it."""
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
