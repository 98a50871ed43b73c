"""Scores on their way to the store: written in batches by a thread of its own, so that no score waits for the disk."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from offkey.errors import OffkeyError
from service.store.scores import RecentScore, Shift

logger = logging.getLogger(__name__)

WRITE_SECONDS = 5.0  # what a crash loses
_MOST = 50_000  # kept while the store cannot be written; the oldest go first


class ScoreBuffer:
    """Takes scores from many threads. What was scored in the last seconds before a crash is lost, and only that."""

    def __init__(self, store: Shift) -> None:
        self._store = store
        self._pending: deque[RecentScore] = deque(maxlen=_MOST)
        self._writing = threading.Lock()
        self._written: set[int] = set()  # whose scores `written` was not told of yet
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, score: RecentScore) -> None:
        """Take a score; costs microseconds."""
        self._pending.append(score)

    def start(self, written: Callable[[set[int]], None]) -> None:
        """Write every few seconds from now on, and call `written` with the keys of the machines that were scored."""
        self._thread = threading.Thread(target=self._run, args=(written,), name="offkey-scores", daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Write what is pending now. Raises `OffkeyError`; nothing is lost then."""
        with self._writing:
            batch = [self._pending.popleft() for _ in range(len(self._pending))]
            if not batch:
                return
            try:
                self._store.add_scores(batch)
            except OffkeyError:
                room = _MOST - len(self._pending)
                self._pending.extendleft(reversed(batch[-room:] if room else []))
                raise
            self._written |= {score.machine_key for score in batch}

    def close(self) -> None:
        """Write the rest and end."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._try()

    def _run(self, written: Callable[[set[int]], None]) -> None:
        while not self._closing.wait(WRITE_SECONDS):
            self._try()
            with self._writing:
                machines, self._written = self._written, set()
            try:
                written(machines)
            except Exception:  # the next scores are written all the same
                logger.exception("the drift of what was scored could not be measured")

    def _try(self) -> None:
        try:
            self.write()
        except OffkeyError as error:
            logger.warning("recent scores are not written yet: %s", error.detail)
