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

from service.domain.errors import ErrorKind, OffkeyError
from service.store.failures import explained

logger = logging.getLogger(__name__)

DATABASE_FILE = "offkey.sqlite3"
MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_MILLISECONDS = 10_000


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
    event.listen(engine, "begin", _begin)
    with explained(), engine.connect().execution_options(write=True) as connection:
        migrate(connection)
        connection.commit()
    logger.info("store %s is open", path)
    return engine


def migrate(connection: Connection) -> None:
    """Apply the migrations that the database lacks, inside the connection's transaction.

    Raises:
        OffkeyError: it has a migration that this version does not know.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # of an INI file
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise OffkeyError(
            ErrorKind.STORE_UNUSABLE,
            f"The store has schema {found}, which a newer version of Offkey made; this one knows up to "
            f"{scripts.get_current_head()}. Run the newer version, or name another data folder.",
        )
    command.upgrade(config, "head")


def _configure(dbapi_connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
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
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later fails if another wrote in between: writers lock at once.
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
