"""Moving a machine's bank to the embedding space of another bundle, whole and at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, select, update

from service.domain.access import Caller
from service.domain.acoustics import Acoustics
from service.domain.distance import Vectors
from service.domain.spectrogram import Spectrogram
from service.store.acoustics import add_acoustics
from service.store.audio import read_audio, read_noise_audio
from service.store.audit import Action, record
from service.store.clips import check_size, write_windows
from service.store.database.base import Transactions
from service.store.errors import isolate_machine
from service.store.jobs import Step, take_step
from service.store.machines import machine_of_key, machine_record, machines
from service.store.noise import move_noise
from service.store.records import BankChangedError, BankLimits, MachineRecord
from service.store.schema import acoustics, audio, clip, embedding, machine, noise, noise_audio, score, spectrogram
from service.store.spectrograms import write_spectrograms


@dataclass(frozen=True)
class SpaceRecord:
    """How much is enrolled in one embedding space."""

    embedding_space_id: str
    machines: int
    clips: int
    clips_without_audio: int


@dataclass(frozen=True)
class KeptClip:
    """A clip of a bank or, where `is_noise`, of its background."""

    number: int  # clip id or noise id
    name: str
    is_noise: bool
    has_audio: bool


@dataclass(frozen=True)
class Reembedded:
    """A clip as another bundle hears it."""

    vectors: Vectors  # (windows, dim)
    starts: NDArray[np.float64]  # (windows,) seconds
    acoustics: Acoustics
    spectrograms: tuple[Spectrogram, ...]


class Reembedding:
    """The part of the store that moves banks, for one caller."""

    def __init__(self, transactions: Transactions, caller: Caller) -> None:
        self._read, self._write = transactions.read, transactions.write
        self._caller = caller

    def spaces(self) -> list[SpaceRecord]:
        """The embedding spaces that banks are in, by id."""
        with self._read() as connection:
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
        """Up to `limit` machines whose banks are of another space and whose id sorts behind `after`, by id."""
        with self._read() as connection:
            rows = connection.execute(
                machines()
                .where(machine.c.embedding_space_id != embedding_space_id, machine.c.machine_id > after)
                .order_by(machine.c.machine_id)
                .limit(limit)
            ).mappings()
            return [machine_record(row) for row in rows]

    def clips(self, seen: MachineRecord) -> list[KeptClip]:
        """All clips of a machine's bank and of its background, in its present space."""
        with self._read() as connection:
            own = connection.execute(
                select(clip.c.clip_id, clip.c.name, audio.c.clip_id)
                .join(audio, audio.c.clip_id == clip.c.clip_id, isouter=True)
                .where(clip.c.machine_key == seen.machine_key)
                .order_by(clip.c.clip_id)
            )
            background = connection.execute(
                select(noise.c.noise_id, noise.c.name, noise_audio.c.noise_id)
                .join(noise_audio, noise_audio.c.noise_id == noise.c.noise_id, isouter=True)
                .where(noise.c.machine_key == seen.machine_key, noise.c.embedding_space_id == seen.embedding_space_id)
                .order_by(noise.c.noise_id)
            )
            return [
                KeptClip(number, name, is_noise, heard is not None)
                for is_noise, rows in ((False, own), (True, background))
                for number, name, heard in rows
            ]

    def audio(self, seen: MachineRecord, kept: KeptClip) -> bytes | None:
        """The file of a clip; None: it is gone.

        Raises:
            OffkeyError: it is not what was posted.
        """
        read = read_noise_audio if kept.is_noise else read_audio
        with self._read() as connection, isolate_machine(seen.machine_id):
            return read(connection, kept.number)

    def move(
        self,
        seen: MachineRecord,
        embedding_space_id: str,
        clips: Mapping[int, Reembedded],
        background: Mapping[int, Vectors],
        limits: BankLimits,
        step: Step | None = None,
    ) -> MachineRecord:
        """Replace all that the old bundle heard of a machine, in one transaction.

        Args:
            seen: the machine as it was when its clips were listed.
            embedding_space_id: of the new bundle.
            clips: every clip of the bank, by id.
            background: embeddings of its clips of noise, by id; those that are not among them stay in the old space.
            limits: of the bank: another bundle may cut clips into more windows.
            step: of a job, written with it or not at all.

        Raises:
            BankChangedError: the bank is not the one that was seen.
            JobOverError: the job is over.
            OffkeyError: the machine was deleted, or its bank would be too large.
        """
        self._caller.check_machine(seen.machine_id)
        key = seen.machine_key
        with self._write() as connection:
            if machine_of_key(connection, seen).generation != seen.generation:
                raise BankChangedError
            of_machine = select(clip.c.clip_id).where(clip.c.machine_key == key)
            for table in (embedding, acoustics, spectrogram):
                connection.execute(delete(table).where(table.c.clip_id.in_(of_machine)))
            for clip_id, domain in connection.execute(
                select(clip.c.clip_id, clip.c.domain).where(clip.c.machine_key == key)
            ).all():
                heard = clips[clip_id]
                write_windows(connection, key, clip_id, domain, heard.vectors, heard.starts)
                add_acoustics(connection, clip_id, heard.acoustics)
                write_spectrograms(connection, clip_id, heard.spectrograms)
            for noise_id, vectors in background.items():
                move_noise(connection, key, noise_id, embedding_space_id, vectors)
            connection.execute(delete(score).where(score.c.machine_key == key))  # they are on the old scale
            connection.execute(
                update(machine)
                .where(machine.c.machine_key == key)
                .values(embedding_space_id=embedding_space_id, generation=machine.c.generation + 1)
            )
            moved = machine_of_key(connection, seen)
            check_size(connection, moved, limits)
            detail = f"{len(clips)} clips from {seen.embedding_space_id} to {embedding_space_id}"
            record(connection, self._caller, Action.REEMBED, seen.machine_id, detail[:500])
            if step:
                take_step(connection, step)
            return moved
