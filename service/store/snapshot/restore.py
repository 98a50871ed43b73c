"""Puts the database of a snapshot into a data folder.

What can end in the middle ends on one side: up to the rename to `*.restored` the folder is as it was, and from there
on whoever opens it next goes on to the end.
"""

from pathlib import Path

from service.store.database.lock import LOCK_FILE, SNAPSHOT_LOCK_FILE, FolderLock
from service.store.database.sqlite import DATABASE_FILE, known_revisions, log_of
from service.store.snapshot.write import (
    PARTIAL_FILE,
    RESTORED_FILE,
    SnapshotError,
    SnapshotManifest,
    removed,
    rename,
    unpack,
)

_NO_DATA = {LOCK_FILE, SNAPSHOT_LOCK_FILE, PARTIAL_FILE, "lost+found"}


def restore(snapshot: Path, data_dir: Path, *, replace: bool) -> SnapshotManifest:
    """Make a data folder hold what a snapshot holds.

    Args:
        snapshot: the file.
        data_dir: the folder; made if need be. No service may be using it.
        replace: whether a folder that is not empty may lose its database.

    Raises:
        SnapshotError: the snapshot is not whole, a newer version made it, or the folder is not empty.
        OffkeyError: a service uses the folder.
        OSError: the disk is full, or a file cannot be read or written.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with FolderLock(data_dir):
        found = sorted(path.name for path in data_dir.iterdir() if path.name not in _NO_DATA)
        if found and not replace:
            raise SnapshotError(
                f"{data_dir} is not empty ({', '.join(found[:5])}). Name another folder, or let its database be lost "
                "with --replace."
            )
        partial = data_dir / PARTIAL_FILE
        with removed(partial):
            manifest = unpack(snapshot, partial)
            if manifest.schema_revision not in known_revisions():
                raise SnapshotError(
                    f"The snapshot has schema {manifest.schema_revision}, which a newer version of Offkey made "
                    f"({manifest.offkey_version}). Restore it with that one."
                )
            rename(partial, data_dir / RESTORED_FILE)
        finish_restore(data_dir)
    return manifest


def finish_restore(data_dir: Path) -> None:
    """Put the database in its place if a restore could not. The caller holds the folder's lock."""
    restored, database = data_dir / RESTORED_FILE, data_dir / DATABASE_FILE
    if restored.exists():
        # The old log would be taken for one of the new database. It goes first: the old database is given up already.
        for old in (log_of(database), database.with_name(f"{DATABASE_FILE}-shm")):
            old.unlink(missing_ok=True)
        rename(restored, database)
