"""Move a machine's bank to the embedding space of another bundle, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, func, null, select

from offkey.vocabulary import Domain
from service.domain.acoustics import Acoustics
from service.domain.distance import Vectors
from service.domain.enrolled import Piece
from service.domain.slices import Slices
from service.domain.spectrogram import Spectrogram
from service.store.acoustics import add_acoustics
from service.store.audio import read_audio, read_noise_audio
from service.store.cells import write_cells
from service.store.clips import write_windows
from service.store.database.base import Database
from service.store.errors import isolate_machine, translate_row_errors
from service.store.machines import machine_record, machines
from service.store.noise import replace_noise
from service.store.pieces import write_pieces
from service.store.records import MachineRecord
from service.store.schema import (
    acoustics,
    audio,
    clip,
    embedding,
    machine,
    noise,
    noise_audio,
    piece,
    score,
    slices,
    spectrogram,
)


@dataclass(frozen=True)
class SpaceRecord:
    """Numbers of one embedding space."""

    embedding_space_id: str
    machines: int
    clips: int
    clips_without_audio: int


@dataclass(frozen=True)
class StoredClip:
    """A clip of a bank or, if `is_noise`, of its noise."""

    number: int  # clip id or noise id
    name: str
    domain: Domain | None  # None for noise
    is_noise: bool
    has_audio: bool


@dataclass(frozen=True)
class Reembedded:
    """What a bank holds of a clip, by another bundle."""

    vectors: Vectors  # (windows, dim)
    starts: NDArray[np.float64]  # (windows,) seconds
    acoustics: Acoustics
    spectrograms: tuple[Spectrogram, ...]
    slices: tuple[Slices, ...]
    pieces: tuple[Piece, ...]


class Reembedding:
    """Reads what moving banks to another bundle needs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def spaces(self) -> list[SpaceRecord]:
        """Return the embedding spaces of all banks, by id."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(
                    machine.c.embedding_space_id,
                    func.count(machine.c.machine_key.distinct()),
                    func.count(clip.c.clip_id),
                    func.count(clip.c.clip_id) - func.count(audio.c.clip_id),
                )
                .select_from(machine)
                .join(clip, clip.c.machine_key == machine.c.machine_key)
                .join(audio, audio.c.clip_id == clip.c.clip_id, isouter=True)
                .where(machine.c.embedding_space_id.is_not(None))
                .group_by(machine.c.embedding_space_id)
                .order_by(machine.c.embedding_space_id)
            )
            return [SpaceRecord(*row) for row in rows]

    def machines_elsewhere(self, embedding_space_id: str, *, after: str, limit: int) -> list[MachineRecord]:
        """Return up to `limit` machines whose banks are in another space and whose id sorts after `after`, by id."""
        with self._database.read() as connection:
            rows = connection.execute(
                machines()
                .where(machine.c.embedding_space_id != embedding_space_id, machine.c.machine_id > after)
                .order_by(machine.c.machine_id)
                .limit(limit)
            ).mappings()
            return [machine_record(row) for row in rows]

    def lacks_pieces(self, seen: MachineRecord) -> bool:
        """Return whether a version that computed no variants and cuts enrolled the clips of a machine."""
        with self._database.read() as connection:
            found = connection.execute(
                select(piece.c.clip_id)
                .join(clip, clip.c.clip_id == piece.c.clip_id)
                .where(clip.c.machine_key == seen.machine_key)
                .limit(1)
            ).first()
        return seen.clips > 0 and found is None

    def clips(self, seen: MachineRecord) -> list[StoredClip]:
        """Return all clips of a machine's bank and its noise clips in the space of the bank."""
        with self._database.read() as connection:
            own = connection.execute(
                select(clip.c.clip_id, clip.c.name, clip.c.domain, audio.c.clip_id)
                .join(audio, audio.c.clip_id == clip.c.clip_id, isouter=True)
                .where(clip.c.machine_key == seen.machine_key)
                .order_by(clip.c.clip_id)
            )
            background = connection.execute(
                select(noise.c.noise_id, noise.c.name, null(), noise_audio.c.noise_id)
                .join(noise_audio, noise_audio.c.noise_id == noise.c.noise_id, isouter=True)
                .where(noise.c.machine_key == seen.machine_key, noise.c.embedding_space_id == seen.embedding_space_id)
                .order_by(noise.c.noise_id)
            )
            return [
                StoredClip(number, name, Domain(domain) if domain else None, is_noise, audio_id is not None)
                for is_noise, rows in ((False, own), (True, background))
                for number, name, domain, audio_id in rows
            ]

    def audio(self, seen: MachineRecord, kept: StoredClip) -> bytes | None:
        """Return the file of a clip. None if it was deleted.

        Raises:
            OffkeyError: it is not what was posted.
        """
        read = read_noise_audio if kept.is_noise else read_audio
        with self._database.read() as connection, isolate_machine(seen.machine_id):
            return read(connection, kept.number)


def replace_embeddings(
    connection: Connection,
    machine_key: int,
    embedding_space_id: str,
    own: Mapping[int, Reembedded],
    background: Mapping[int, Vectors],
) -> None:
    """Replace what a machine's bank holds of its clips. Delete its scores: they are on another scale.

    Args:
        connection: connection in a transaction.
        machine_key: key of the machine.
        embedding_space_id: space of the new bundle.
        own: new embeddings of every clip of the bank, by clip id.
        background: new embeddings of noise clips, by noise id.
    """
    of_machine = select(clip.c.clip_id).where(clip.c.machine_key == machine_key)
    for table in (embedding, acoustics, spectrogram, slices, piece):
        connection.execute(delete(table).where(table.c.clip_id.in_(of_machine)))
    for clip_id, domain in _domains(connection, machine_key):
        new = own[clip_id]
        write_windows(connection, machine_key, clip_id, domain, new.vectors, new.starts)
        add_acoustics(connection, clip_id, new.acoustics)
        write_cells(connection, spectrogram, clip_id, new.spectrograms)
        write_cells(connection, slices, clip_id, new.slices)
        write_pieces(connection, clip_id, new.pieces)
    for noise_id, vectors in background.items():
        replace_noise(connection, machine_key, noise_id, embedding_space_id, vectors)
    connection.execute(delete(score).where(score.c.machine_key == machine_key))


@translate_row_errors()
def _domains(connection: Connection, machine_key: int) -> list[tuple[int, Domain]]:
    """Return the id and domain of each clip of a machine."""
    rows = connection.execute(select(clip.c.clip_id, clip.c.domain).where(clip.c.machine_key == machine_key))
    return [(clip_id, Domain(domain)) for clip_id, domain in rows]
