"""Move banks to the bundle that serves, from the audio that was kept."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from offkey.errors import ABOUT_CLIP, ErrorKind, OffkeyError
from offkey.vocabulary import EntryStatus, JobKind, Rule
from service.audio.budget import UNLIMITED, Budget
from service.jobs.handler import Work
from service.store import BankChangedError, MachineRecord
from service.store.jobs import JobEntry, JobRecord, Step
from service.store.reembedding import KeptClip, Reembedded
from service.telemetry.stages import Stage
from service.usecases.clip import Clip, EmbeddedClip, embed_clip
from service.usecases.service import Context

_PAGE = 100
# Of one machine: another may do.
_ABOUT_MACHINE = ABOUT_CLIP | {
    ErrorKind.AUDIO_NOT_KEPT,
    ErrorKind.BANK_FULL,
    ErrorKind.MACHINE_DAMAGED,
    ErrorKind.UNKNOWN_MACHINE,
}

Key = tuple[bool, int]  # whether it is of the background, and its number


@dataclass(frozen=True)
class Moved:
    """What became of a machine.

    Attributes:
        clips: of its bank that were embedded anew; 0: it was in the space of the bundle already, or empty.
        note: what a person should know.
    """

    clips: int
    note: str | None


def reembed_machine(
    context: Context,
    machine_id: str,
    heard_one: Callable[[], None],
    budget: Budget = UNLIMITED,
    report: Callable[[Moved], Step] | None = None,
) -> Moved:
    """Hear every kept clip of a machine by the current bundle, and switch the machine to it, whole and at once.

    Until then it is scored, and takes clips, in the space that it is in. Clips that are enrolled or deleted meanwhile
    are made up for before the switch.

    Args:
        context: the adapters.
        machine_id: which machine.
        heard_one: called after each clip; what it raises ends the work, and nothing is changed.
        budget: likewise asked before each window.
        report: makes of what became of the machine a step of a job, which is written with the switch or not at all.

    Raises:
        JobOverError: the job is over.
        OffkeyError: the machine is unknown; the audio of a clip was not kept, is damaged, or is nothing that the new
            bundle can hear; or the bank would be too large.
    """
    heard: dict[Key, EmbeddedClip] = {}
    while True:  # again only if its bank was changed meanwhile
        record = context.store.machine(machine_id)
        if record.embedding_space_id in (None, context.encoders.current.embedding_space_id):
            return Moved(0, None)
        with suppress(BankChangedError):
            return _move(context, record, heard, heard_one, budget, report)


def _move(
    context: Context,
    record: MachineRecord,
    heard: dict[Key, EmbeddedClip],
    heard_one: Callable[[], None],
    budget: Budget,
    report: Callable[[Moved], Step] | None,
) -> Moved:
    clips = context.store.reembedding.clips(record)
    lacking = [one for one in clips if not (one.has_audio or one.is_noise)]
    if lacking:
        raise OffkeyError(
            ErrorKind.AUDIO_NOT_KEPT,
            f"Of {len(lacking)} of the {record.clips} clips of machine {record.machine_id} the audio was not kept "
            f"({lacking[0].name} is the first). Post the same files to /enroll once more with OFFKEY_KEEP_AUDIO on, "
            "which keeps them, or delete these clips.",
            machine_id=record.machine_id,
            clips_without_audio=len(lacking),
        )
    for one in clips:
        if one.has_audio and (one.is_noise, one.number) not in heard:
            heard[one.is_noise, one.number] = _hear(context, record, one, budget)
            heard_one()
    own = {one.number: _reembedded(heard[False, one.number]) for one in clips if not one.is_noise}
    background = {one.number: heard[True, one.number].vectors for one in clips if one.is_noise and one.has_audio}
    moved = Moved(len(own), _note(record, sum(one.is_noise and not one.has_audio for one in clips)))
    with context.stages.during(Stage.STORE):
        context.store.reembedding.move(
            record,
            context.encoders.current.embedding_space_id,
            own,
            background,
            context.bank_limits,
            report and report(moved),
        )
    return moved


def _hear(context: Context, record: MachineRecord, kept: KeptClip, budget: Budget) -> EmbeddedClip:
    file = context.store.reembedding.audio(record, kept)
    if file is None:  # deleted since it was listed
        raise BankChangedError
    return embed_clip(context, context.encoders.current, Clip(kept.name, file, budget))


def _reembedded(clip: EmbeddedClip) -> Reembedded:
    return Reembedded(clip.vectors, clip.starts, clip.acoustics, clip.spectrograms)


def _note(record: MachineRecord, noise_left: int) -> str | None:
    notes = []
    if record.threshold_rule is Rule.MANUAL:
        notes.append(
            f"Its manual decision threshold of {record.decision_threshold:g} is on the old bundle's scale: "
            "choose it anew, or ask for a false-alarm rate."
        )
    if noise_left:
        notes.append(f"Of {noise_left} clips of its background the audio was not kept: post them to /noise again.")
    return " ".join(notes) or None


def start_reembedding(context: Context, machine_id: str | None) -> JobRecord:
    """Ask for one machine, or for all that need it, to be moved. Raises `OffkeyError` (unknown machine, overloaded)."""
    machine = None if machine_id is None else context.store.machine(machine_id)
    return context.store.jobs.add(JobKind.REEMBED, machine, {})


class Reembed:
    """Jobs of the kind `reembed`. An entry is a machine; its number is the machine's key."""

    def run(self, work: Work) -> None:
        """Move machine after machine; one that cannot be moved leaves the others."""
        context, job = work.context, work.job
        reported = context.store.jobs.reported(job.job_id)
        todo = [machine for machine in _machines(work) if machine.machine_key not in reported]
        context.store.jobs.plan(job.job_id, len(reported) + len(todo))
        for done, machine in enumerate(todo, len(reported) + 1):
            try:
                moved = reembed_machine(
                    context, machine.machine_id, work.check, work.budget(), partial(_step, job.job_id, done, machine)
                )
            except OffkeyError as error:
                if error.kind not in _ABOUT_MACHINE:
                    raise
                context.store.jobs.take(_refused(job.job_id, done, machine, error))
                continue
            if not moved.clips:  # nothing was written, so neither was this
                context.store.jobs.take(_step(job.job_id, done, machine, moved))

    def clean(self, work: Work, *, done: bool) -> None:
        """Nothing is left behind."""


def _machines(work: Work) -> list[MachineRecord]:
    """Those that the job is about."""
    if work.job.machine_id is not None:
        return [work.context.store.machine(work.job.machine_id)]
    space, found = work.context.encoders.current.embedding_space_id, list[MachineRecord]()
    while page := work.context.store.reembedding.machines_elsewhere(
        space, after=found[-1].machine_id if found else "", limit=_PAGE
    ):
        found += page
    return found


def _step(job_id: int, done: int, machine: MachineRecord, moved: Moved) -> Step:
    status = EntryStatus.MOVED if moved.clips else EntryStatus.UNCHANGED
    return Step(job_id, done, [JobEntry(machine.machine_key, machine.machine_id, status, detail=moved.note)])


def _refused(job_id: int, done: int, machine: MachineRecord, error: OffkeyError) -> Step:
    clip = error.values.get("clip")
    detail = error.detail if clip is None else f"{clip}: {error.detail} Delete the clip, or serve another bundle."
    entry = JobEntry(
        machine.machine_key, machine.machine_id, EntryStatus.REFUSED, problem=error.kind.value, detail=detail
    )
    return Step(job_id, done, [entry])
