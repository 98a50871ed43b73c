"""Check a database: its pages, its relations, every embedding. Changes nothing.

It uses SQLite directly, so that everything that can still be read from a damaged database is reported.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from service.store.audio import checked
from service.store.cells import Row, unpack_rows
from service.store.database.sqlite import log_of
from service.store.embeddings import check_windows, stacked
from service.store.noise import StoredNoise, check_noise
from service.store.pieces import PieceRow, unpack_pieces

_MOST_MESSAGES = 10
_UNIT_TOLERANCE = 1e-3
_BUSY_SECONDS = 10.0

_WINDOWS = """
SELECT c.clip_id, c.domain, e."window", e.start_s, e.vector, {checksum}
FROM clip c LEFT JOIN embedding e ON e.clip_id = c.clip_id WHERE c.machine_key = ? ORDER BY c.clip_id, e."window"
"""

_CELLS = """
SELECT s.clip_id, s."window", s.bands, s.cells, s.checksum
FROM clip c JOIN {table} s ON s.clip_id = c.clip_id WHERE c.machine_key = ?
"""

_PIECES = """
SELECT p.clip_id, p.number, p.kind, p.seconds, p.vector, p.bands, p.cells, p.checksum
FROM clip c JOIN piece p ON p.clip_id = c.clip_id WHERE c.machine_key = ?
"""


_NOISE = "SELECT noise_id, embedding_space_id, windows, vectors, checksum FROM noise WHERE machine_key = ?"


_AUDIO = """
SELECT 'clip ' || c.clip_id, c.sha256, a.file FROM clip c JOIN audio a ON a.clip_id = c.clip_id
WHERE c.machine_key = :machine
UNION ALL
SELECT 'clip ' || n.noise_id || ' of the noise', n.sha256, a.file
FROM noise n JOIN noise_audio a ON a.noise_id = n.noise_id WHERE n.machine_key = :machine
"""


@dataclass(frozen=True)
class Damage:
    """A value that is not what was written."""

    machine_id: str | None  # None if the machine is unknown
    what: str

    def __str__(self) -> str:
        return self.what if self.machine_id is None else f"machine {self.machine_id}: {self.what}"


@dataclass(frozen=True)
class Report:
    """Contents and damage of a database."""

    schema_revision: str
    machines: int
    clips: int
    windows: int
    damage: tuple[Damage, ...]

    @property
    def contents(self) -> str:
        """Size of the store, as text."""
        return contents(self.machines, self.clips, self.windows, self.schema_revision)


def contents(machines: int, clips: int, windows: int, schema_revision: str) -> str:
    """Return the size of a store, as text."""
    return f"{machines} machines, {clips} clips, {windows} windows (schema {schema_revision})"


def open_read_only(database: Path) -> sqlite3.Connection:
    """Open an existing database, also while a service uses it or on a read-only volume."""
    uri = f"file:{quote(str(database.absolute()))}?mode=ro"
    if not (log_of(database).exists() or os.access(database.parent, os.W_OK)):
        uri += "&immutable=1"  # otherwise SQLite would try to create a log
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)


def check_database(database: Path) -> Report:
    """Check everything. Damage is reported, never raised."""
    damage: list[Damage] = []
    counts = {"machine": 0, "clip": 0, "embedding": 0}
    revision = "unknown"
    try:
        with closing(open_read_only(database)) as connection:
            connection.execute("BEGIN")  # everything as of one moment
            damage += _whole_file(connection)
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            for table in counts:  # constant names: SQL has no parameters for tables
                (counts[table],) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
            has_checksums, has_spectrograms, has_slices, has_pieces, has_noise, has_audio = (
                column in _columns(connection, table)
                for table, column in (
                    ("embedding", "checksum"),
                    ("spectrogram", "checksum"),
                    ("slices", "checksum"),
                    ("piece", "checksum"),
                    ("noise", "checksum"),
                    ("audio", "file"),
                )
            )
            for machine_key, machine_id in connection.execute("SELECT machine_key, machine_id FROM machine").fetchall():
                found = list(_machine(connection, int(machine_key), has_checksums))
                if has_spectrograms and not found:
                    found += _cells(connection, "spectrogram", int(machine_key))
                if has_slices and not found:
                    found += _cells(connection, "slices", int(machine_key))
                if has_pieces and not found:
                    found += _pieces(connection, int(machine_key))
                if has_noise and not found:
                    found += _noise(connection, int(machine_key))
                if has_audio and not found:
                    found += _audio(connection, int(machine_key))
                damage += [Damage(str(machine_id), what) for what in found]
    except (sqlite3.Error, TypeError, ValueError) as error:
        damage.append(Damage(None, f"the database cannot be read: {error}"))
    return Report(revision, counts["machine"], counts["clip"], counts["embedding"], tuple(damage))


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """Return the columns of a table. Empty if the schema is too old to have it."""
    return {column[1] for column in connection.execute(f"PRAGMA table_info({table})")}


def _whole_file(connection: sqlite3.Connection) -> Iterator[Damage]:
    """Yield the damage that SQLite finds in pages and trees."""
    try:
        for (found,) in connection.execute(f"PRAGMA integrity_check({_MOST_MESSAGES})"):
            if found != "ok":
                yield Damage(None, " ".join(str(found).split()))
        for table, row, *_ in connection.execute("PRAGMA foreign_key_check").fetchmany(_MOST_MESSAGES):
            yield Damage(None, f"row {row} of {table} belongs to nothing")
    except sqlite3.Error as error:
        yield Damage(None, f"the check of the whole file ended early: {error}")


def _machine(connection: sqlite3.Connection, machine_key: int, has_checksums: bool) -> Iterator[str]:
    """Yield the first damage of a bank."""
    select = _WINDOWS.format(checksum="e.checksum" if has_checksums else "NULL")
    try:
        rows = connection.execute(select, (machine_key,)).fetchall()
        if has_checksums:
            check_windows(machine_key, rows)
        bank = stacked([row[4] for row in rows])  # (windows, dim)
    except Exception as error:  # a damaged value can be of any type
        yield str(error)
        return
    if len(bank):
        norms = np.linalg.norm(bank.astype(np.float64), axis=1)
        if not np.isfinite(bank).all():
            yield "an embedding holds NaN or infinite values"
        elif (worst := float(np.abs(norms - 1.0).max())) > _UNIT_TOLERANCE:
            yield f"the norm of an embedding is off 1 by {worst:.2g}"


def _cells(connection: sqlite3.Connection, table: str, machine_key: int) -> Iterator[str]:
    """Yield the first damage of the arrays of a bank in a table."""
    try:
        unpack_rows((Row(*row) for row in connection.execute(_CELLS.format(table=table), (machine_key,))), table)
    except Exception as error:  # as above
        yield str(error)


def _pieces(connection: sqlite3.Connection, machine_key: int) -> Iterator[str]:
    """Yield the first damage of the variants and cuts of a bank."""
    try:
        unpack_pieces(PieceRow(*row) for row in connection.execute(_PIECES, (machine_key,)))
    except Exception as error:  # as above
        yield str(error)


def _noise(connection: sqlite3.Connection, machine_key: int) -> Iterator[str]:
    """Yield the first damage of the noise of a machine."""
    try:
        check_noise(machine_key, [StoredNoise(*row) for row in connection.execute(_NOISE, (machine_key,))])
    except Exception as error:  # as above
        yield str(error)


def _audio(connection: sqlite3.Connection, machine_key: int) -> Iterator[str]:
    """Yield the first damage of the stored files of a machine."""
    try:
        for whose, sha256, file in connection.execute(_AUDIO, {"machine": machine_key}):
            checked(file, sha256, whose)
    except Exception as error:  # as above
        yield str(error)
