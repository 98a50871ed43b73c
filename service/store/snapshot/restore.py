"""Restore the database of a snapshot into a data folder.

Before the rename to `*.restored` an interrupted restore leaves the folder unchanged. After it, the next process that
opens the folder completes the restore.
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
    """Replace the contents of a data folder by those of a snapshot.

    Args:
        snapshot: file of the snapshot.
        data_dir: folder, which is created if needed. No service may use it.
        replace: whether a folder that is not empty may lose its database.

    Raises:
        SnapshotError: the snapshot is damaged, a newer version wrote it, or the folder is not empty.
        OffkeyError: a service uses the folder.
        OSError: the disk is full, or a file cannot be read or written.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with FolderLock(data_dir):
        found = sorted(path.name for path in data_dir.iterdir() if path.name not in _NO_DATA)
        if found and not replace:
            raise SnapshotError(
                f"{data_dir} is not empty ({', '.join(found[:5])}). Name another folder, or discard its database with "
                "--replace."
            )
        partial = data_dir / PARTIAL_FILE
        with removed(partial):
            manifest = unpack(snapshot, partial)
            if manifest.schema_revision not in known_revisions():
                raise SnapshotError(
                    f"The snapshot has schema {manifest.schema_revision}, which a newer version of Offkey wrote "
                    f"({manifest.offkey_version}). Restore it with that one."
                )
            rename(partial, data_dir / RESTORED_FILE)
        finish_restore(data_dir)
    return manifest


def finish_restore(data_dir: Path) -> None:
    """Complete an interrupted restore. The caller holds the folder's lock."""
    restored, database = data_dir / RESTORED_FILE, data_dir / DATABASE_FILE
    if restored.exists():
        # The old log would be read as one of the new database, so it is deleted first. The old database is lost anyway.
        for old in (log_of(database), database.with_name(f"{DATABASE_FILE}-shm")):
            old.unlink(missing_ok=True)
        rename(restored, database)
