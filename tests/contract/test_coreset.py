"""A service that compares with a coreset: everything stays enrolled, and answers state what they compare with."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from launch import in_process
from service.domain.access import COMMAND_LINE
from service.settings import MIN_CORESET_WINDOWS, Settings
from service.synthetic import MACHINES

Fan = Callable[..., bytes]
FAN = {"machine_id": "fan-1"}
CLIPS = 104
NEW = 16  # clips that are not enrolled at first


@pytest.fixture(scope="module")
def clips(encode: Fan) -> list[bytes]:
    machine = MACHINES["fan-synthetic"]
    return [
        encode(machine.clip(split="train", domain="source", number=number, seconds=1.0), subtype="PCM_16")
        for number in range(CLIPS + NEW)
    ]


@pytest.fixture(scope="module")
def enrolled(clips: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a bank of 104 windows, which tests copy."""
    folder = tmp_path_factory.mktemp("enrolled") / "data"
    with in_process(folder) as api:
        api.put("/machines/fan-1")
        enroll(api, clips[:CLIPS])
    return folder


@pytest.fixture
def reduced(settings: Settings, enrolled: Path) -> Iterator[TestClient]:
    """A service that compares with 100 of 104 windows."""
    shutil.copytree(enrolled, settings.data_dir)
    with in_process(settings, coreset_windows=MIN_CORESET_WINDOWS) as api:
        yield api


def enroll(api: TestClient, clips: list[bytes]) -> None:
    for start in range(0, len(clips), 52):
        files = [("clips", (f"{start + at}.wav", clip)) for at, clip in enumerate(clips[start : start + 52])]
        answer = api.post("/enroll", params={**FAN, "force": "true"}, files=files)
        assert answer.status_code == 201, answer.text


def test_all_stays_enrolled_and_the_answer_says_how_many_are_compared_with(
    reduced: TestClient, settings: Settings, clips: list[bytes]
) -> None:
    answer = reduced.post("/score", params={**FAN, "neighbors": "32"}, content=clips[-1]).json()
    (domain,) = answer["threshold"]["domains"]
    assert (domain["clips"], domain["compared_clips"], domain["recordings"]) == (CLIPS, 100, 100)
    assert answer["threshold"]["calibration_version"].endswith(":coreset-100")
    assert answer["localization_note"] is None  # nothing is missing among those that are compared with
    assert len(reduced.get("/machines/fan-1/clips", params={"limit": 1000}).json()["clips"]) == CLIPS
    assert reduced.get("/info").json()["limits"]["coreset_windows"] == 100
    reduced.app.state.service.store.close()

    with in_process(settings) as whole:  # without the setting all count again
        (domain,) = whole.post("/score", params=FAN, content=clips[-1]).json()["threshold"]["domains"]
        assert (domain["clips"], domain["compared_clips"]) == (CLIPS, CLIPS)


def test_the_setting_changes_nothing_where_the_bank_is_smaller(settings: Settings, clips: list[bytes]) -> None:
    with in_process(settings) as api:
        api.put("/machines/fan-1")
        enroll(api, clips[:30])
        before = api.post("/score", params=FAN, content=clips[-1]).json() | {"timing_ms": {}}
    shutil.rmtree(settings.data_dir / "runtime")  # its calibration is computed again
    with in_process(settings, coreset_windows=MIN_CORESET_WINDOWS) as api:
        assert api.post("/score", params=FAN, content=clips[-1]).json() | {"timing_ms": {}} == before


def test_feedback_judges_also_a_clip_that_the_coreset_leaves_out(reduced: TestClient, clips: list[bytes]) -> None:
    files = [("clips", (f"new-{at}.wav", clip)) for at, clip in enumerate(clips[CLIPS:])]
    alone = [reduced.post("/score", params=FAN, content=clip).json()["clips"][0] for clip in clips[CLIPS:]]
    answer = reduced.post("/feedback", params=FAN, files=files)
    assert answer.status_code == 200, answer.text
    call = reduced.app.state.service.call(COMMAND_LINE)
    bank = call.bank(call.store.machine("fan-1"))
    found = answer.json()["clips"]
    inside = [bank.compares_with(clip["clip_id"]) for clip in found]
    assert set(inside) == {True, False}
    for clip, before in zip(found, alone, strict=True):
        assert clip["before"]["anomaly_score"] == pytest.approx(before["anomaly_score"], abs=1e-6)
    for clip, kept in zip(found, inside, strict=True):
        if not kept:  # the present bank gives it the same score
            again = reduced.post("/score", params=FAN, content=clips[CLIPS + found.index(clip)]).json()["clips"][0]
            assert clip["after"]["anomaly_score"] == pytest.approx(again["anomaly_score"], abs=1e-6)


@pytest.mark.parametrize("windows", [-1, 1, MIN_CORESET_WINDOWS - 1])
def test_a_coreset_that_calibrates_nothing_is_refused(windows: int, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"100 or more|greater than or equal to 0"):
        Settings(data_dir=tmp_path, coreset_windows=windows)
