"""One unit of work: everything written in it is on disk when it ends, or none of it is written.

A use case opens it (`with store.begin(machine) as tx`), writes straight down, and leaves the block. Errors roll back.
Changes are recorded in the audit log of the same transaction, in the name of the caller.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from offkey.errors import ErrorKind, OffkeyError
from offkey.keys import Token
from offkey.vocabulary import JobKind, JobState, Rule, Scope
from service.bank.rows import BankChangedError
from service.domain.access import Caller
from service.domain.distance import Vectors
from service.store import clips, idempotency, jobs, keys, noise, reembedding
from service.store.audio import add_missing_audio
from service.store.audit import Action, record
from service.store.database.base import lock_machine
from service.store.idempotency import IdempotencyKey
from service.store.jobs import JobEntry, JobRecord
from service.store.keys import KeyRecord
from service.store.machines import machine_of_id, machine_of_key
from service.store.noise import NewNoise, NoiseRecord
from service.store.records import BankLimits, Enrolled, MachineRecord, NewClip
from service.store.reembedding import Reembedded
from service.store.schema import clip, deleted_machine, machine


class Transaction:
    """Writes on behalf of a caller. Created by `Store.begin`."""

    def __init__(self, connection: Connection, caller: Caller) -> None:
        self._connection = connection
        self._caller = caller
        self._machine: MachineRecord | None = None

    @property
    def machine(self) -> MachineRecord:
        """The locked machine, as this transaction sees it."""
        assert self._machine is not None, "the transaction was begun without a machine"
        return self._machine

    def lock(self, wanted: MachineRecord | str) -> None:
        """Lock a machine's row.

        Args:
            wanted: id of the machine, or the record that a request has worked with. A machine that was deleted and
                created again is not the machine of an earlier record.

        Raises:
            OffkeyError: there is no such machine, or the key of the caller does not cover it.
        """
        if isinstance(wanted, str):
            self._caller.check_machine(wanted)
            lock_machine(self._connection, machine.c.machine_id == wanted)
            self._machine = machine_of_id(self._connection, wanted)
        else:
            self._caller.check_machine(wanted.machine_id)
            lock_machine(self._connection, machine.c.machine_key == wanted.machine_key)
            self._machine = machine_of_key(self._connection, wanted)

    def require(self, generation: int) -> None:
        """Raise `BankChangedError` if the machine's bank is not at this generation."""
        if self.machine.generation != generation:
            raise BankChangedError

    def require_space(self, embedding_space_id: str) -> None:
        """Raise `BankChangedError` if the machine's bank is in another embedding space. An empty bank is in none."""
        if self.machine.embedding_space_id not in (None, embedding_space_id):
            raise BankChangedError

    def require_clips(self, known: Mapping[str, Enrolled]) -> None:
        """Raise `BankChangedError` if one of these clips, by sha256, is no longer enrolled as it was."""
        if known and clips.clips_by_content(self._connection, self.machine.machine_key, list(known)) != known:
            raise BankChangedError

    # -- machines

    def put_machine(self, machine_id: str, description: str) -> tuple[MachineRecord, bool]:
        """Create a machine or change its description. Returns it and whether it is new.

        The generation of a new machine is above every generation that a machine of this id ever had.
        """
        self._caller.check_machine(machine_id)
        changed = self._connection.execute(
            update(machine).where(machine.c.machine_id == machine_id).values(description=description)
        ).rowcount
        if not changed:
            last = self._connection.execute(
                select(deleted_machine.c.generation).where(deleted_machine.c.machine_id == machine_id)
            ).scalar_one_or_none()
            self._connection.execute(
                insert(machine).values(
                    machine_id=machine_id,
                    generation=0 if last is None else last + 1,
                    created_at=datetime.now(UTC),
                    description=description,
                )
            )
        action = Action.DESCRIBE_MACHINE if changed else Action.CREATE_MACHINE
        record(self._connection, self._caller, action, machine_id)
        return machine_of_id(self._connection, machine_id), not changed

    def set_threshold(
        self, rule: Rule, *, false_alarm_rate: float | None, decision_threshold: float | None
    ) -> MachineRecord:
        """Set how the machine's decision threshold is chosen."""
        self._update(
            threshold_rule=rule.value, false_alarm_rate=false_alarm_rate, decision_threshold=decision_threshold
        )
        value = decision_threshold if rule is Rule.MANUAL else false_alarm_rate
        self._audit(Action.CHANGE_THRESHOLD, str(rule) if value is None else f"{rule} {value:g}")
        return self.machine

    def delete_machine(self) -> MachineRecord:
        """Delete the machine with its bank. Returns its last record."""
        gone = self.machine
        self._connection.execute(delete(machine).where(machine.c.machine_key == gone.machine_key))
        self._connection.execute(delete(deleted_machine).where(deleted_machine.c.machine_id == gone.machine_id))
        self._connection.execute(insert(deleted_machine).values(machine_id=gone.machine_id, generation=gone.generation))
        self._audit(Action.DELETE_MACHINE, f"{gone.clips} clips")
        return gone

    # -- clips and noise

    def add_clips(
        self, new: Sequence[NewClip], embedding_space_id: str, limits: BankLimits, action: Action
    ) -> list[Enrolled]:
        """Enroll clips of one domain. Content that is already enrolled is not added again.

        Args:
            new: the clips.
            embedding_space_id: space of their embeddings.
            limits: limits of the bank.
            action: entry of the audit log.

        Raises:
            OffkeyError: the same content, or a piece of the same recording, is enrolled under the other domain; or
                the bank would have too many clips or windows.
        """
        key = self.machine.machine_key
        for recording, domain in {(one.recording, one.domain) for one in new if one.recording is not None}:
            clips.check_recording(self._connection, key, recording, domain)
        enrolled = [clips.add_clip(self._connection, key, one) for one in new]
        added = [one for one in enrolled if not one.duplicate]
        if added:
            # The guard has not judged clips that were forced, so a bank without them is not good enough for it.
            self._raise_generation(guard=action is not Action.ENROLL, embedding_space_id=embedding_space_id)
            clips.check_size(self._connection, self.machine, limits)
            first, generation = added[0].clip_id, self.machine.generation
            detail = f"{len(added)} {new[0].domain} clips from id {first}, generation {generation}"
            self._audit(action, detail)
        return enrolled

    def add_missing_audio(self, files: Mapping[int, bytes]) -> None:
        """Store the files of clips, by clip id, that were enrolled without."""
        add_missing_audio(self._connection, files)

    def delete_clip(self, clip_id: int) -> MachineRecord:
        """Delete a clip from the bank. Raises `OffkeyError` (unknown clip)."""
        machine_id = self.machine.machine_id
        gone = self._connection.execute(
            delete(clip).where(clip.c.machine_key == self.machine.machine_key, clip.c.clip_id == clip_id)
        ).rowcount
        if not gone:
            raise OffkeyError(
                ErrorKind.UNKNOWN_CLIP,
                f"Machine {machine_id} has no clip {clip_id}. GET /machines/{machine_id}/clips lists them.",
            )
        if self.machine.clips == 1:  # an empty bank is in no space: the next clip may come from any bundle
            self._raise_generation(guard=True, embedding_space_id=None)
        else:
            self._raise_generation(guard=True)
        self._audit(Action.DELETE_CLIP, f"clip {clip_id}")
        return self.machine

    def add_noise(self, embedding_space_id: str, new: Sequence[NewNoise]) -> list[tuple[NoiseRecord, bool]]:
        """Store noise clips. Returns each and whether it was already there.

        Raises:
            OffkeyError: the machine would have too many windows of noise.
        """
        key = self.machine.machine_key
        stored = [noise.add_noise(self._connection, key, embedding_space_id, one) for one in new]
        if added := sum(not known for _, known in stored):
            self._raise_generation()
            noise.check_noise_size(self._connection, key)
            self._audit(Action.ADD_NOISE, f"{added} clips")
        return stored

    def delete_noise(self, noise_id: int) -> None:
        """Delete a noise clip. Raises `OffkeyError` (unknown clip)."""
        noise.delete_noise(self._connection, self.machine.machine_key, noise_id)
        self._raise_generation()
        self._audit(Action.DELETE_NOISE, f"noise {noise_id}")

    def replace_embeddings(
        self,
        embedding_space_id: str,
        own: Mapping[int, Reembedded],
        background: Mapping[int, Vectors],
        limits: BankLimits,
    ) -> MachineRecord:
        """Replace all embeddings of the machine by those of another bundle.

        Args:
            embedding_space_id: space of the new bundle.
            own: new embeddings of every clip of the bank, by clip id.
            background: new embeddings of noise clips, by noise id. Others stay in the old space.
            limits: limits of the bank. Another bundle may cut clips into more windows.

        Raises:
            OffkeyError: the bank would be too large.
        """
        old = self.machine.embedding_space_id
        key = self.machine.machine_key
        reembedding.replace_embeddings(self._connection, key, embedding_space_id, own, background)
        self._raise_generation(guard=True, embedding_space_id=embedding_space_id)
        clips.check_size(self._connection, self.machine, limits)
        self._audit(Action.REEMBED, f"{len(own)} clips from {old} to {embedding_space_id}"[:500])
        return self.machine

    # -- responses, jobs, keys

    def find_response(self, key: IdempotencyKey) -> str | None:
        """Return the stored response to a request with this key. Raises `OffkeyError`: it was another request."""
        return idempotency.find_response(self._connection, key)

    def store_response(self, key: IdempotencyKey, response: str) -> None:
        """Store the response to a request that is about the machine."""
        idempotency.store_response(self._connection, key, self.machine.machine_key, response)

    def add_job(self, kind: JobKind, parameters: Mapping[str, Any]) -> JobRecord:
        """Queue a job about the locked machine, or about the whole service. Raises `OffkeyError`: too many wait."""
        machine_id = None if self._machine is None else self._machine.machine_id
        return jobs.add_job(self._connection, self._caller, kind, machine_id, parameters)

    def cancel_job(self, job_id: int) -> JobRecord:
        """Cancel a job of the caller. Raises `OffkeyError`: it is unknown, or over."""
        return jobs.cancel_job(self._connection, self._caller, job_id)

    def next_job(self) -> JobRecord | None:
        """Return the job to run: an interrupted one, otherwise the first in the queue. Marks it as running."""
        return jobs.next_job(self._connection)

    def set_total(self, job_id: int, total: int) -> None:
        """Set the amount of work of a job. Raises `JobOverError`."""
        jobs.set_total(self._connection, job_id, total)

    def report(self, job_id: int, done: int, entries: Sequence[JobEntry] = ()) -> None:
        """Store the progress of a job.

        Args:
            job_id: id of the job.
            done: part of its total that is done.
            entries: results of entries since the last report.

        Raises:
            JobOverError: the job is over, for example canceled. The transaction is rolled back.
        """
        jobs.report(self._connection, job_id, done, entries)

    def finish_job(
        self, job_id: int, state: JobState, *, result: str | None = None, error: OffkeyError | None = None
    ) -> None:
        """Store the end of a job. Raises `JobOverError` if it had ended before."""
        jobs.finish_job(self._connection, job_id, state, result=result, error=error)

    def create_key(
        self, name: str, scopes: Iterable[Scope], *, machine_prefix: str | None, rate_per_minute: int | None
    ) -> tuple[KeyRecord, Token]:
        """Create a key. Its token cannot be read again later."""
        created, token = keys.create_key(self._connection, name, scopes, machine_prefix, rate_per_minute)
        record(self._connection, self._caller, Action.CREATE_KEY, detail=keys.audit_detail(created))
        return created, token

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key. Revoking it again changes nothing. Raises `OffkeyError` (unknown key)."""
        revoked = keys.revoke_key(self._connection, key_id)
        if revoked is not None:
            record(self._connection, self._caller, Action.REVOKE_KEY, detail=f"{key_id} {revoked}")

    def _raise_generation(self, *, guard: bool = False, **values: str | None) -> None:
        """Raise the generation of the machine's bank.

        Args:
            guard: whether older cached banks must not be used by the guard any more.
            **values: other columns to set.
        """
        following = self.machine.generation + 1
        self._update(generation=following, **({"guard_generation": following} if guard else {}), **values)

    def _update(self, **values: Any) -> None:
        """Set columns of the machine's row and read it again."""
        seen = self.machine
        self._connection.execute(update(machine).where(machine.c.machine_key == seen.machine_key).values(**values))
        self._machine = machine_of_key(self._connection, seen)

    def _audit(self, action: Action, detail: str = "") -> None:
        """Write an entry of the audit log about the locked machine."""
        record(self._connection, self._caller, action, self.machine.machine_id, detail)
