"""Move banks to the current bundle, from the stored audio."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from offkey.errors import ABOUT_CLIP, ErrorKind, OffkeyError
from offkey.schemas import Job
from offkey.vocabulary import Domain, EntryStatus, JobKind, Rule
from service.domain.distance import Vectors
from service.encoder.pieces import embed_pieces
from service.jobs.handler import JobRun
from service.store import BankChangedError, MachineRecord
from service.store.jobs import JobEntry
from service.store.reembedding import Reembedded, StoredClip
from service.telemetry.stages import Stage
from service.usecases.clip import Clip, embed_clip
from service.usecases.jobs import job_of
from service.usecases.service import Call

_PAGE = 100
# Errors that concern one machine: the others can still be moved.
_ABOUT_MACHINE = ABOUT_CLIP | {
    ErrorKind.AUDIO_NOT_KEPT,
    ErrorKind.BANK_FULL,
    ErrorKind.MACHINE_DAMAGED,
    ErrorKind.UNKNOWN_MACHINE,
}

Key = tuple[bool, int]  # whether it is a noise clip, and its id


def start_reembedding(call: Call, machine_id: str | None) -> Job:
    """Queue the move of one machine, or of all that need it. Raises `OffkeyError` (unknown machine, overloaded)."""
    with call.store.begin(machine_id) as tx:
        job = tx.add_job(JobKind.REEMBED, {})
    call.service.job_signals.wake()
    return job_of(call, job)


class Reembed:
    """Handles jobs of the kind `reembed`. An entry is a machine; its number is the machine's key."""

    def run(self, run: JobRun) -> None:
        """Move machine after machine. A machine that cannot be moved does not affect the others."""
        call, job_id = run.call, run.job.job_id
        reported = call.store.jobs.reported(job_id)
        rest = [machine for machine in _machines(run) if machine.machine_key not in reported]
        with call.store.begin() as tx:
            tx.set_total(job_id, len(reported) + len(rest))
        for done, machine in enumerate(rest, len(reported) + 1):
            try:
                _reembed_machine(run, machine, done)
            except OffkeyError as error:
                if error.kind not in _ABOUT_MACHINE:
                    raise
                with call.store.begin() as tx:
                    tx.report(job_id, done, [_refused(machine, error)])

    def clean(self, run: JobRun, *, done: bool) -> None:
        """Do nothing: no files are left behind."""


@dataclass(frozen=True)
class _Embedded:
    """New embeddings of a machine, by the id of the clip or noise clip."""

    own: dict[int, Reembedded]
    background: dict[int, Vectors]
    noise_without_audio: int


def _reembed_machine(run: JobRun, listed: MachineRecord, done: int) -> None:
    """Embed every stored clip of a machine with the current bundle, and switch the machine in one transaction.

    Until then it is scored, and accepts clips, in its present space. Clips that are enrolled or deleted meanwhile are
    caught up before the switch.

    Raises:
        JobOverError: the job is over.
        OffkeyError: the machine was deleted; the audio of a clip was not stored, is damaged, or cannot be embedded by
            the new bundle; or the bank would be too large.
    """
    call, job_id = run.call, run.job.job_id
    space = call.service.encoders.current.embedding_space_id
    embedded: dict[Key, Reembedded] = {}
    while True:
        record = call.store.machine(listed.machine_id)
        is_current = record.embedding_space_id in (None, space)
        if is_current and not call.store.reembedding.lacks_pieces(record):
            with call.store.begin() as tx:
                tx.report(job_id, done, [JobEntry(listed.machine_key, listed.machine_id, EntryStatus.UNCHANGED)])
            return
        with suppress(BankChangedError):
            new = _embed_all(run, record, embedded)
            with call.stages.during(Stage.STORE), call.store.begin(record) as tx:
                tx.require(record.generation)
                tx.replace_embeddings(space, new.own, new.background, call.service.bank_limits)
                note = _note(record, new.noise_without_audio)
                entry = JobEntry(listed.machine_key, listed.machine_id, EntryStatus.MOVED, detail=note)
                tx.report(job_id, done, [entry])
            return


def _embed_all(run: JobRun, record: MachineRecord, embedded: dict[Key, Reembedded]) -> _Embedded:
    """Embed the clips that are not in `embedded` yet."""
    stored = run.call.store.reembedding.clips(record)
    without_audio = [one for one in stored if not (one.has_audio or one.is_noise)]
    if without_audio:
        raise OffkeyError(
            ErrorKind.AUDIO_NOT_KEPT,
            f"The audio of {len(without_audio)} of the {record.clips} clips of machine {record.machine_id} was not "
            f"stored ({without_audio[0].name} is the first). Post the same files to /enroll again with "
            "OFFKEY_KEEP_AUDIO on, which stores them, or delete these clips.",
            machine_id=record.machine_id,
            clips_without_audio=len(without_audio),
        )
    before = Counter[Domain | None]()
    for one in stored:
        if one.has_audio and (one.is_noise, one.number) not in embedded:
            embedded[one.is_noise, one.number] = _embed(run, record, one, before[one.domain])
            run.check()
        before[one.domain] += 1
    own = {one.number: embedded[False, one.number] for one in stored if not one.is_noise}
    background = {one.number: embedded[True, one.number].vectors for one in stored if one.is_noise and one.has_audio}
    return _Embedded(own, background, sum(one.is_noise and not one.has_audio for one in stored))


def _embed(run: JobRun, record: MachineRecord, stored: StoredClip, before: int) -> Reembedded:
    """Embed a stored clip; `before` is the number of clips of its domain that were enrolled before it."""
    file = run.call.store.reembedding.audio(record, stored)
    if file is None:  # deleted since it was listed
        raise BankChangedError
    call, encoder, budget = run.call, run.call.service.encoders.current, run.budget()
    clip = embed_clip(call, encoder, Clip(stored.name, file, budget))
    pieces = () if stored.is_noise else embed_pieces(encoder, clip.waveform.samples, clip.starts, before, budget)
    return Reembedded(clip.vectors, clip.starts, clip.acoustics, clip.spectrograms, clip.slices, pieces)


def _note(record: MachineRecord, noise_without_audio: int) -> str | None:
    notes = []
    if record.threshold_rule is Rule.MANUAL:
        notes.append(
            f"Its manual decision threshold of {record.decision_threshold:g} is on the scale of the old bundle: "
            "set it again, or request a false-alarm rate."
        )
    if noise_without_audio:
        notes.append(f"The audio of {noise_without_audio} noise clips was not stored: post them to /noise again.")
    return " ".join(notes) or None


def _machines(run: JobRun) -> list[MachineRecord]:
    """Return the machines that the job is about."""
    if run.job.machine_id is not None:
        return [run.call.store.machine(run.job.machine_id)]
    space, found = run.call.service.encoders.current.embedding_space_id, list[MachineRecord]()
    while page := run.call.store.reembedding.machines_elsewhere(
        space, after=found[-1].machine_id if found else "", limit=_PAGE
    ):
        found += page
    return found


def _refused(machine: MachineRecord, error: OffkeyError) -> JobEntry:
    clip = error.values.get("clip")
    detail = error.detail if clip is None else f"{clip}: {error.detail} Delete the clip, or serve another bundle."
    return JobEntry(
        machine.machine_key, machine.machine_id, EntryStatus.REFUSED, problem=error.kind.value, detail=detail
    )
