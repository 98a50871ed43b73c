"""The guard uses a cached bank that is fresh enough, and never one that misses a change it depends on.

The change may have been made by another process: the machine's guard_generation is in the store.
"""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from offkey.vocabulary import Domain
from service.usecases.clip import Clip
from service.usecases.enroll import EnrollOptions, enroll_clips
from service.usecases.feedback import enroll_false_alarms
from service.usecases.machines import delete_clip
from service.usecases.service import Call

Fan = Callable[..., bytes]
PLAIN = EnrollOptions(Domain.SOURCE)
FORCED = EnrollOptions(Domain.SOURCE, force=True)
FALSE_ALARM = EnrollOptions(Domain.SOURCE, force=True, false_alarm=True)
NEW_STATE = range(90, 96)  # clips of a way to run that the bank does not contain


@pytest.fixture
def api(full_api: TestClient) -> TestClient:
    """The service that `call` is a request to: one with 20 enrolled clips."""
    return full_api


@pytest.fixture(autouse=True)
def full_bank(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine `fan-1` of 20 clips, for which a cached bank is fresh enough though it lacks the newest clips."""
    monkeypatch.setattr("service.usecases.guard._FEW_CLIPS", 0)


def clips(fan: Fan, numbers: range, severity: float = 0.0) -> list[Clip]:
    return [Clip(f"{number}.wav", fan(number, severity=severity)) for number in numbers]


def status(call: Call, clip: Clip) -> str:
    """Enroll a clip and return what became of it."""
    (enrolled,) = enroll_clips(call, "fan-1", PLAIN, [clip]).clips
    return enrolled.status


def cache_bank(call: Call) -> int:
    """Load the newest bank. Returns its generation."""
    return call.bank(call.store.machine("fan-1")).generation


def test_after_plain_enrollments_a_cached_bank_is_fresh_enough(
    call: Call, writer: Call, fan: Fan, built: list[int]
) -> None:
    cached = cache_bank(call)
    enroll_clips(writer, "fan-1", PLAIN, clips(fan, range(50, 53)))
    built.clear()
    assert status(call, Clip("new.wav", fan(60))) == "enrolled"
    assert status(call, Clip("bad.wav", fan(89, severity=1.0))) == "held-back"
    assert built == []
    assert cached < call.store.machine("fan-1").generation


@pytest.mark.parametrize("change", ["forced", "false alarm"])
def test_clips_that_were_not_judged_are_seen_by_the_guard_at_once(
    call: Call, writer: Call, fan: Fan, built: list[int], change: str
) -> None:
    assert status(call, Clip("bad.wav", fan(96, severity=1.0))) == "held-back"
    new = clips(fan, NEW_STATE, severity=1.0)
    if change == "forced":
        enroll_clips(writer, "fan-1", FORCED, new)
    else:
        enroll_false_alarms(writer, "fan-1", FALSE_ALARM, new)
    generation = call.store.machine("fan-1").generation
    assert status(call, Clip("bad.wav", fan(96, severity=1.0))) == "enrolled"
    assert generation in built


def test_a_deleted_clip_justifies_no_other(call: Call, writer: Call, fan: Fan) -> None:
    forced = [
        enrolled.clip_id for enrolled in enroll_clips(call, "fan-1", FORCED, clips(fan, NEW_STATE, severity=1.0)).clips
    ]
    cache_bank(call)  # contains them
    for clip_id in forced:
        assert clip_id is not None
        delete_clip(writer, "fan-1", clip_id)
    assert status(call, Clip("bad.wav", fan(96, severity=1.0))) == "held-back"


def test_a_score_is_of_the_newest_bank_whoever_wrote_it(call: Call, writer: Call, fan: Fan) -> None:
    before = cache_bank(call)
    enroll_clips(writer, "fan-1", PLAIN, clips(fan, range(50, 53)))
    assert cache_bank(call) == before + 1
