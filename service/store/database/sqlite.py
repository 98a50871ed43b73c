"""Open a SQLite database durably, migrate it, and run its transactions."""

import logging
import sqlite3
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from offkey.errors import ErrorKind, OffkeyError
from service.store.database.base import Database
from service.store.errors import translate_errors, translate_row_errors

logger = logging.getLogger(__name__)

DATABASE_FILE = "offkey.sqlite3"
MIGRATIONS = Path(__file__).parents[1] / "migrations"
_BUSY_MILLISECONDS = 10_000
_LOG = "log"  # key of a connection's own write-ahead log


class SqliteDatabase(Database):
    """The SQLite database of one data folder."""

    def __init__(self, data_dir: Path) -> None:
        """Open `data_dir/offkey.sqlite3`, create it if needed, and migrate it to the newest schema.

        A commit is on disk when it returns (WAL, synchronous=FULL).

        Raises:
            OSError: the folder cannot be created.
            OffkeyError: the database cannot be used, or a newer version of Offkey made it.
        """
        self._path = data_dir / DATABASE_FILE
        self.engine = open_engine(data_dir)
        self._identity = file_identity(self._path)
        self._version_lock = threading.Lock()
        # A connection that never writes: SQLite reports commits of all other connections and processes to it. It never
        # waits for a lock, because the event loop reads the version.
        self._watcher = sqlite3.connect(self._path, timeout=0, check_same_thread=False, isolation_level=None)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with translate_errors(self._path.parent), translate_row_errors(), self.engine.connect() as connection:
            self._check_in_place(connection)
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with translate_errors(self._path.parent), self.engine.connect() as connection:
            connection.execution_options(write=True)
            self._check_in_place(connection)
            yield connection
            connection.commit()
            self._check_in_place(connection)  # or the commit went to a deleted file

    def version(self) -> Hashable | None:
        if file_identity(self._path) != self._identity:
            return None  # a transaction reports that the file is gone
        try:
            with self._version_lock:
                return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return None

    def ping(self) -> None:
        with self.engine.connect() as connection:
            self._check_in_place(connection)
            connection.execute(text("SELECT 1 FROM machine LIMIT 1"))

    def close(self) -> None:
        self._watcher.close()
        self.engine.dispose()

    def _check_in_place(self, connection: Connection) -> None:
        """Raise `OffkeyError` if the database or its log is no longer the file that was opened.

        A deleted file keeps working for whoever has it open, and everything written to it is lost at the end.
        """
        opened_log = connection.info.get(_LOG)
        for path, opened in ((self._path, self._identity), (log_of(self._path), opened_log)):
            if file_identity(path) != opened:
                raise OffkeyError(
                    ErrorKind.STORE_UNUSABLE,
                    f"{path.name} was deleted or replaced while the service was running, so nothing more is written. "
                    "Put it back, or restore a snapshot (`offkey restore`), and start the service again.",
                )


def open_engine(data_dir: Path) -> Engine:
    """Open and migrate the database of a folder. Raises as `SqliteDatabase` does."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / DATABASE_FILE
    engine = create_engine(URL.create("sqlite", database=str(path)))  # a folder may be called `da?ta`
    event.listen(engine, "connect", _configure)

    @event.listens_for(engine, "connect")
    def store_log_identity(_: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_LOG] = file_identity(log_of(path))

    event.listen(engine, "begin", _begin)
    with translate_errors(data_dir), engine.connect().execution_options(write=True) as connection:
        migrate(connection)
        connection.commit()
    logger.info("store %s is open", path)
    return engine


def migrate(connection: Connection) -> None:
    """Apply the migrations that the database lacks, inside the connection's transaction.

    Raises:
        OffkeyError: the database has a migration that this version does not have.
    """
    config = _config()
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in known_revisions():
        raise OffkeyError(
            ErrorKind.STORE_UNUSABLE,
            f"The store has schema {found}, which a newer version of Offkey made; this version supports up to "
            f"{scripts.get_current_head()}. Run the newer version, or name another data folder.",
        )
    command.upgrade(config, "head")


def known_revisions() -> set[str]:
    """Return the schemas that this version can migrate."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # of an INI file
    return config


FileIdentity = tuple[int, int] | None  # device and inode; None if there is no such file


def file_identity(path: Path) -> FileIdentity:
    """Return what distinguishes a file from another file of the same name."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def log_of(database: Path) -> Path:
    """Return the path of SQLite's write-ahead log of a database."""
    return database.with_name(f"{database.name}-wal")


def _configure(dbapi_connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    try:
        _set_up(dbapi_connection)
    except BaseException:
        # The pool drops a connection that could not be set up, and SQLite caches facts about a file for as long as one
        # connection is open.
        dbapi_connection.close()
        raise


def _set_up(dbapi_connection: DBAPIConnection) -> None:
    # The driver's own BEGIN comes too late for a consistent read and never takes the write lock up front.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in (
        f"busy_timeout={_BUSY_MILLISECONDS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.execute("SELECT count(*) FROM sqlite_master")  # opens the log
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later fails if another wrote in between: writers lock at once.
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
