"""Buffer scores and write them in batches on a separate thread, so that no score waits for the disk."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from offkey.errors import OffkeyError
from service.store.scores import RecentScore, RecentScores

logger = logging.getLogger(__name__)

WRITE_SECONDS = 5.0  # scores of so many seconds are lost in a crash
_MAX_SCORES = 50_000  # buffered while the store cannot be written; the oldest are dropped first


class ScoreBuffer:
    """Accepts scores from many threads. Only scores of the last seconds before a crash are lost."""

    def __init__(self, scores: RecentScores) -> None:
        self._scores = scores
        self._pending: deque[RecentScore] = deque(maxlen=_MAX_SCORES)
        self._writing = threading.Lock()
        self._written: set[int] = set()  # machines not yet passed to `written`
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, score: RecentScore) -> None:
        """Add a score. Takes microseconds."""
        self._pending.append(score)

    def start(self, written: Callable[[set[int]], None]) -> None:
        """Start to write every few seconds. `written` is called with the keys of the machines that were scored."""
        self._thread = threading.Thread(target=self._run, args=(written,), name="offkey-scores", daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Write the buffered scores now. Raises `OffkeyError`; the scores stay buffered then."""
        with self._writing:
            batch = [self._pending.popleft() for _ in range(len(self._pending))]
            if not batch:
                return
            try:
                self._scores.add_scores(batch)
            except OffkeyError:
                room = _MAX_SCORES - len(self._pending)
                self._pending.extendleft(reversed(batch[-room:] if room else []))
                raise
            self._written |= {score.machine_key for score in batch}

    def close(self) -> None:
        """Write the rest and end the thread."""
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
            except Exception:  # scores are still written
                logger.exception("the drift of recent scores could not be computed")

    def _try(self) -> None:
        try:
            self.write()
        except OffkeyError as error:
            logger.warning("recent scores are not written yet: %s", error.detail)
