"""Opens the SQLite database durably and brings its schema up to date."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from offkey.errors import ErrorKind, OffkeyError
from service.store.errors import translate_errors

logger = logging.getLogger(__name__)

DATABASE_FILE = "offkey.sqlite3"
MIGRATIONS = Path(__file__).parents[1] / "migrations"
_BUSY_MILLISECONDS = 10_000
_LOG = "log"  # key of a connection's own write-ahead log


def open_engine(data_dir: Path) -> Engine:
    """Open `data_dir/offkey.sqlite3`, create it if need be, and migrate it to the newest schema.

    A commit is on disk when it returns (WAL, synchronous=FULL).

    Raises:
        OSError: the folder cannot be made.
        OffkeyError: the database cannot be used, or a newer version of Offkey made it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / DATABASE_FILE
    engine = create_engine(URL.create("sqlite", database=str(path)))  # a folder may be called `da?ta`
    event.listen(engine, "connect", _configure)

    @event.listens_for(engine, "connect")
    def know_log(_: DBAPIConnection, record: ConnectionPoolEntry) -> None:
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
        OffkeyError: it has a migration that this version does not know.
    """
    config = _config()
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in known_revisions():
        raise OffkeyError(
            ErrorKind.STORE_UNUSABLE,
            f"The store has schema {found}, which a newer version of Offkey made; this one knows up to "
            f"{scripts.get_current_head()}. Run the newer version, or name another data folder.",
        )
    command.upgrade(config, "head")


def known_revisions() -> set[str]:
    """The schemas that this version can migrate."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # of an INI file
    return config


FileIdentity = tuple[int, int] | None  # device and inode; None: no such file


def file_identity(path: Path) -> FileIdentity:
    """What tells a file from another that takes its name."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def log_of(database: Path) -> Path:
    """SQLite's write-ahead log of a database."""
    return database.with_name(f"{database.name}-wal")


def check_in_place(connection: Connection, database: Path, identity: FileIdentity) -> None:
    """Raise `OffkeyError` if the database or its log is no longer the file that was opened.

    A file that was deleted goes on working for whoever has it open, and all that is written to it is lost at the end.
    """
    for path, opened in ((database, identity), (log_of(database), connection.info.get(_LOG))):
        if file_identity(path) != opened:
            raise OffkeyError(
                ErrorKind.STORE_UNUSABLE,
                f"{path.name} was deleted or replaced while the service was running, so nothing more is written. Put "
                "it back, or restore a snapshot (`offkey restore`), and start the service again.",
            )


def _configure(dbapi_connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    try:
        _set_up(dbapi_connection)
    except BaseException:
        # The pool forgets a connection that it did not get ready, and SQLite keeps what it knows of a file for as long
        # as one is open.
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
