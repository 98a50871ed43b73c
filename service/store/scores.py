"""Store recent scores, and read the acoustics of enrolled clips that drift is compared with."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select

from offkey.vocabulary import Domain
from service.domain.acoustics import Acoustics
from service.store.acoustics import acoustics_of
from service.store.database.base import Database
from service.store.schema import machine, score

RECENT_SCORES = 500  # per machine


@dataclass(frozen=True)
class RecentScore:
    """The score of one clip.

    Attributes:
        machine_key: key of the machine that was scored.
        scored_at: time of the score.
        generation: generation of the bank that was compared with.
        backend: name of the backend.
        domain: domain of the nearest enrolled clip.
        anomaly_score: score of the clip.
    """

    machine_key: int
    scored_at: datetime
    generation: int
    backend: str
    domain: Domain
    anomaly_score: float

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for what only a damaged database can hold."""
        if not math.isfinite(self.anomaly_score):
            raise ValueError(f"a clip of machine {self.machine_key} scores {self.anomaly_score}")


class RecentScores:
    """Reads and writes recent scores and acoustics. Access is checked by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acoustics(self, machine_key: int, domain: Domain, newest: int) -> list[tuple[Acoustics, Hashable]]:
        """Return the acoustics of the newest clips of a domain, each with the recording it was cut from."""
        with self._database.read() as connection:
            return [
                (found, ("clip", clip_id) if recording is None else recording)
                for clip_id, (found, recording) in acoustics_of(connection, machine_key, domain, newest).items()
            ]

    def add_scores(self, scores: Sequence[RecentScore]) -> None:
        """Store scores, and keep the newest `RECENT_SCORES` of each machine. Scores of deleted machines are dropped."""
        keys = sorted({one.machine_key for one in scores})
        with self._database.write() as connection:
            there = set(connection.scalars(select(machine.c.machine_key).where(machine.c.machine_key.in_(keys))))
            rows = [{**vars(one), "domain": one.domain.value} for one in scores if one.machine_key in there]
            if rows:
                connection.execute(insert(score), rows)
            for key in there:
                last = (
                    select(score.c.score_id)
                    .where(score.c.machine_key == key)
                    .order_by(score.c.score_id.desc())
                    .offset(RECENT_SCORES)
                    .limit(1)
                    .scalar_subquery()
                )
                connection.execute(delete(score).where(score.c.machine_key == key, score.c.score_id <= last))

    def machine_id(self, machine_key: int) -> str | None:
        """Return the id of a machine. None if it was deleted."""
        with self._database.read() as connection:
            return connection.scalar(select(machine.c.machine_id).where(machine.c.machine_key == machine_key))

    def recent_scores(self, machine_key: int, generation: int, backend: str) -> list[RecentScore]:
        """Return the scores against one bank, oldest first."""
        columns = [column for column in score.c if column.name != "score_id"]
        with self._database.read() as connection:
            rows = connection.execute(
                select(*columns)
                .where(score.c.machine_key == machine_key, score.c.generation == generation, score.c.backend == backend)
                .order_by(score.c.score_id)
            ).mappings()
            return [RecentScore(**{**row, "domain": Domain(row["domain"])}) for row in rows]
