"""What tells of shift: the conditions of enrolled clips, and what was scored lately."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, insert, select

from offkey.vocabulary import Domain
from service.domain.acoustics import Acoustics
from service.store.acoustics import acoustics_of
from service.store.database.base import Transactions
from service.store.schema import machine, score

RECENT_SCORES = 500  # of a machine


@dataclass(frozen=True)
class RecentScore:
    """The score of one clip.

    Attributes:
        machine_key: of the machine that it was scored for.
        scored_at: when.
        generation: of the bank that it was compared with.
        backend: that measured.
        domain: of the enrolled clip that it is nearest to.
        anomaly_score: of the clip.
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


class Shift:
    """The part of the store that knows of shift. It is about no caller: who asks was looked at before."""

    def __init__(self, transactions: Transactions) -> None:
        self._read, self._write = transactions.read, transactions.write

    def acoustics(self, machine_key: int, domain: Domain, newest: int) -> list[tuple[Acoustics, Hashable]]:
        """The conditions of the newest clips of a domain that were measured, and the recording each was cut from."""
        with self._read() as connection:
            return [
                (found, ("clip", clip_id) if recording is None else recording)
                for clip_id, (found, recording) in acoustics_of(connection, machine_key, domain, newest).items()
            ]

    def add_scores(self, scores: Sequence[RecentScore]) -> None:
        """Keep scores, and of each machine the newest `RECENT_SCORES`. Those of machines that are gone are dropped."""
        keys = sorted({one.machine_key for one in scores})
        with self._write() as connection:
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
        """The id of a machine; None: it was deleted."""
        with self._read() as connection:
            return connection.scalar(select(machine.c.machine_id).where(machine.c.machine_key == machine_key))

    def recent_scores(self, machine_key: int, generation: int, backend: str) -> list[RecentScore]:
        """What was scored against one bank, the oldest first."""
        columns = [column for column in score.c if column.name != "score_id"]
        with self._read() as connection:
            rows = connection.execute(
                select(*columns)
                .where(score.c.machine_key == machine_key, score.c.generation == generation, score.c.backend == backend)
                .order_by(score.c.score_id)
            ).mappings()
            return [
                RecentScore(
                    **{**row, "domain": Domain(row["domain"]), "scored_at": row["scored_at"].replace(tzinfo=UTC)}
                )
                for row in rows
            ]
