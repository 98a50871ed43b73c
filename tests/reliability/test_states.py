"""Any sequence of what can be done to machines, their banks and their data, held against a model in plain Python."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from offkey.errors import ErrorKind, OffkeyError
from offkey.schemas import Enrollment, MachineSettings, ThresholdSettings
from offkey.vocabulary import Domain
from service.bank import BankCache
from service.domain.access import COMMAND_LINE
from service.settings import Settings
from service.store import Store
from service.store.snapshot.restore import restore
from service.store.snapshot.write import write_snapshot
from service.usecases import machines as usecase
from service.usecases.clip import Clip
from service.usecases.enroll import EnrollOptions, enroll_clips
from service.usecases.score import ScoreOptions, score_clips
from service.usecases.service import Service
from service.usecases.threshold import get_threshold
from torture import TORTURE, scaled

SEQUENCES = scaled(3_000, 20)
STEPS = 30
CLIPS = 7
IDS, NUMBERS = st.sampled_from(["fan-1", "fan-2"]), st.integers(0, CLIPS - 1)
CLOSE = {"rel": 1e-4, "abs": 1e-4}

StoredClip = tuple[int, Domain, str | None, Clip]


@dataclass
class Bank:
    """A machine of the model: what is enrolled, by sha256, in order."""

    generation: int
    clips: dict[str, StoredClip] = field(default_factory=dict)
    threshold: ThresholdSettings = field(default_factory=ThresholdSettings)
    answers: dict[str, tuple[Any, Enrollment]] = field(default_factory=dict)  # key: Idempotency-Key

    def domain_of(self, recording: str | None) -> Domain | None:
        return next((clip[1] for clip in self.clips.values() if recording is not None and clip[2] == recording), None)


@dataclass
class Model:
    """All that must be so."""

    machines: dict[str, Bank] = field(default_factory=dict)
    deleted_machine: dict[str, int] = field(default_factory=dict)  # last generation by machine id
    last_clip: int = 0

    def answer_of(self, key: str) -> tuple[Any, Enrollment] | None:
        return next((bank.answers[key] for bank in self.machines.values() if key in bank.answers), None)


@pytest.fixture(scope="module")
def opened(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose encoder and decoders every sequence uses."""
    service = Service.open(Settings(data_dir=tmp_path_factory.mktemp("data"), bundle=bundle, workers=1))
    yield service
    service.close()


@contextmanager
def refused(*kinds: ErrorKind) -> Iterator[None]:
    with pytest.raises(OffkeyError) as error:
        yield
    assert error.value.kind in kinds


class Machines(RuleBasedStateMachine):
    """What can be done to the machines of a service, through its use cases."""

    opened: ClassVar[Service]
    folder_of_all: ClassVar[Path]
    files: ClassVar[Sequence[Clip]]
    sounds: ClassVar[Any]
    oracle: ClassVar[Callable[..., Any]]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=self.folder_of_all))
        self.data = self.folder / "data"
        self.model, self.packed = Model(), Model()
        self.snapshot: Path | None = None
        self.known: dict[tuple[Any, ...], Any] = {}  # oracles by content of the bank
        self.open()

    def open(self) -> None:
        banks = BankCache(exact_limit=10_000, max_bytes=1_000_000)  # a bank or two
        self.call = replace(self.opened, store=Store.open(self.data), banks=banks).call(COMMAND_LINE)

    def teardown(self) -> None:
        self.call.store.close()
        shutil.rmtree(self.folder)

    @rule(machine=IDS)
    def put(self, machine: str) -> None:
        answer, created = usecase.put_machine(self.call, machine, MachineSettings())
        assert created is (machine not in self.model.machines)
        if created:
            self.model.machines[machine] = Bank(self.model.deleted_machine.get(machine, -1) + 1)
        assert answer.generation == self.model.machines[machine].generation

    @rule(machine=IDS)
    def delete(self, machine: str) -> None:
        if machine not in self.model.machines:
            with refused(ErrorKind.UNKNOWN_MACHINE):
                usecase.delete_machine(self.call, machine)
            return
        usecase.delete_machine(self.call, machine)
        self.model.deleted_machine[machine] = self.model.machines.pop(machine).generation

    @rule(
        machine=IDS,
        numbers=st.lists(NUMBERS, min_size=1, max_size=3),
        domain=st.sampled_from(Domain),
        recording=st.sampled_from([None, None, "tape"]),
        key=st.sampled_from([None, None, "key"]),
    )
    def enroll(self, machine: str, numbers: list[int], domain: Domain, recording: str | None, key: str | None) -> None:
        posted = [self.files[number] for number in numbers]
        options = EnrollOptions(domain, recording)
        request = machine, options, [clip.name for clip in posted]

        def send() -> Enrollment:
            return enroll_clips(self.call, machine, options, posted, key)

        earlier = None if key is None else self.model.answer_of(key)
        if earlier is not None and earlier[0] != request:
            with refused(ErrorKind.IDEMPOTENCY_KEY_REUSED):
                send()
        elif earlier is not None:
            assert send() == earlier[1]
        elif machine not in self.model.machines:
            with refused(ErrorKind.UNKNOWN_MACHINE):
                send()
        elif self.conflicts(machine, posted, options):
            with refused(ErrorKind.DOMAIN_CONFLICT):
                send()
        else:
            answer = send()
            self.enrolled(machine, posted, options, answer)
            if key is not None:
                self.model.machines[machine].answers[key] = request, answer

    def conflicts(self, machine: str, posted: list[Clip], options: EnrollOptions) -> bool:
        bank = self.model.machines[machine]
        known = [bank.clips[clip.sha256] for clip in posted if clip.sha256 in bank.clips]
        new = [clip for clip in posted if clip.sha256 not in bank.clips]
        other = bank.domain_of(options.recording) not in (None, options.domain)
        return any(clip[1] is not options.domain for clip in known) or (bool(new) and other)

    def enrolled(self, machine: str, posted: list[Clip], options: EnrollOptions, answer: Enrollment) -> None:
        bank, added = self.model.machines[machine], False
        for clip, result in zip(posted, answer.clips, strict=True):
            if clip.sha256 in bank.clips:
                assert (result.status, result.clip_id) == ("duplicate", bank.clips[clip.sha256][0])
                continue
            assert result.status == "enrolled"
            assert result.clip_id is not None
            assert result.clip_id > self.model.last_clip  # never used again
            self.model.last_clip = result.clip_id
            bank.clips[clip.sha256] = result.clip_id, options.domain, options.recording, clip
            added = True
        bank.generation += added
        assert answer.generation == bank.generation

    @rule(machine=IDS, number=st.integers(0, 9))
    def delete_clip(self, machine: str, number: int) -> None:
        bank = self.model.machines.get(machine)
        if bank is None or not bank.clips:
            with refused(ErrorKind.UNKNOWN_MACHINE, ErrorKind.UNKNOWN_CLIP):
                usecase.delete_clip(self.call, machine, max(self.model.last_clip, 1))
            return
        sha256 = list(bank.clips)[number % len(bank.clips)]
        usecase.delete_clip(self.call, machine, bank.clips.pop(sha256)[0])
        bank.generation += 1

    @rule(machine=IDS, rate=st.sampled_from([None, 0.3, 0.01]), value=st.sampled_from([None, None, 1.5]))
    def threshold(self, machine: str, rate: float | None, value: float | None) -> None:
        chosen = (
            ThresholdSettings(false_alarm_rate=rate)
            if value is None
            else ThresholdSettings(rule="manual", decision_threshold=value)
        )
        if machine not in self.model.machines:
            with refused(ErrorKind.UNKNOWN_MACHINE):
                usecase.put_threshold(self.call, machine, chosen)
            return
        usecase.put_threshold(self.call, machine, chosen)
        self.model.machines[machine].threshold = chosen

    @rule(machine=IDS, number=NUMBERS)
    def score(self, machine: str, number: int) -> None:
        clip, bank = self.files[number], self.model.machines.get(machine)
        if bank is None:
            with refused(ErrorKind.UNKNOWN_MACHINE):
                score_clips(self.call, machine, [clip], ScoreOptions())
            return
        right = self.right(bank)
        if isinstance(right, ErrorKind):
            with refused(right):
                score_clips(self.call, machine, [clip], ScoreOptions())
            return
        answer = score_clips(self.call, machine, [clip], ScoreOptions())
        (scored,) = answer.clips
        assert answer.generation == bank.generation
        assert scored.anomaly_score == pytest.approx(right.score(clip), **CLOSE)
        for window, embedding in zip(scored.windows, right.embedded(clip).vectors, strict=True):
            assert window.neighbors[0].clip_id in right.nearest(embedding)
        wanted = bank.threshold.decision_threshold
        if wanted is None:
            wanted = right.threshold(bank.threshold.false_alarm_rate or self.call.service.settings.false_alarm_rate)
        assert answer.threshold.decision_threshold == pytest.approx(wanted, **CLOSE)
        assert get_threshold(self.call, machine) == answer.threshold

    def copied(self, model: Model) -> Model:
        """Copy a model. Clips are shared: they never change, and their budgets cannot be copied."""
        return deepcopy(model, {id(clip): clip for clip in self.files})

    def right(self, bank: Bank) -> Any:
        """The oracle of a bank, or why it cannot score."""
        if not bank.clips:
            return ErrorKind.EMPTY_BANK
        members = tuple((*clip[:3], sha256) for sha256, clip in bank.clips.items())
        if members not in self.known:
            try:
                self.known[members] = type(self).oracle(list(bank.clips.values()), self.sounds)
            except OffkeyError as error:
                self.known[members] = error.kind
        return self.known[members]

    @rule()
    def restart(self) -> None:
        self.call.store.close()
        self.open()

    @rule()
    def pack(self) -> None:
        self.snapshot, self.packed = self.folder / "backup.tar", self.copied(self.model)
        write_snapshot(self.data, self.snapshot)

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def unpack(self) -> None:
        assert self.snapshot is not None
        self.call.store.close()
        restore(self.snapshot, self.data, replace=True)
        self.model = self.copied(self.packed)
        self.open()

    @invariant()
    def all_is_there_and_nothing_else(self) -> None:
        listed = usecase.list_machines(self.call, "", 100).machines
        assert [one.machine_id for one in listed] == sorted(self.model.machines)
        for one in listed:
            bank = self.model.machines[one.machine_id]
            assert one.generation == bank.generation
            clips = usecase.list_clips(self.call, one.machine_id, 0, 100).clips
            assert {clip.sha256: (clip.clip_id, clip.domain, clip.recording) for clip in clips} == {
                sha256: clip[:3] for sha256, clip in bank.clips.items()
            }

    @invariant()
    def every_bank_scores_as_the_oracle(self) -> None:
        for machine, bank in self.model.machines.items():
            right, record = self.right(bank), self.call.store.machine(machine)
            if isinstance(right, ErrorKind):
                with refused(right):
                    self.call.bank(record)
                continue
            found = self.call.bank(record)
            assert found.generation == bank.generation
            clip = right.embedded(self.files[-1])
            scores, named = found.score(clip.vectors, 1, clip.slices, clip.seconds)
            assert scores.score == pytest.approx(right.score(self.files[-1]), **CLOSE)
            assert all(near[0].clip_id in right.nearest(one) for near, one in zip(named, clip.vectors, strict=True))


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder whose disk is not waited for, where there is one: how durable a commit is, is tested elsewhere."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.timeout(7_200 if TORTURE else 600)  # a failure is made small first
def test_every_sequence_ends_as_the_model_says(
    opened: Service, fan: Callable[..., bytes], oracle: Callable[..., Any], sounds: Callable[..., Any], memory: Path
) -> None:
    clips = [fan(number, seconds=1.0) for number in range(CLIPS - 1)]
    clips.append(fan(CLIPS, seconds=11.0))  # of two windows
    Machines.opened, Machines.folder_of_all, Machines.oracle = opened, memory, oracle
    Machines.files = [Clip(f"{number}.wav", clip) for number, clip in enumerate(clips)]
    Machines.sounds = sounds(opened)
    run_state_machine_as_test(
        Machines,
        settings=hypothesis.settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not TORTURE,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
