"""Machines as they are read: domains, recordings, sections, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from offkey.vocabulary import Domain
from training.data.catalog import DataError
from training.evaluation.bootstrap import recordings_of
from training.evaluation.tree import read_tree


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """`make(*paths)`: a tree of empty files; a tree is read by its names."""

    def build(*paths: str) -> Path:
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        return tmp_path

    return build


def test_domains_conditions_and_recordings_come_from_names(tree: Path) -> None:
    fan, pump = read_tree(tree)
    assert (fan.name, pump.name) == ("fan-synthetic", "pump-synthetic")
    assert [clip.domain for clip in fan.train] == [Domain.SOURCE] * 4 + [Domain.TARGET] * 2
    assert fan.anomalous.sum() == 8
    assert fan.target.sum() == 8
    assert not pump.target.any()
    recordings = {(clip.domain, clip.anomalous): clip.recording for clip in fan.test}
    assert len(set(recordings.values())) == 4
    # Two clips to a recording; a healthy and a faulty recording of one number are two recordings.
    assert recordings_of(fan) == {f"{c} {d}": 2 for c in ("anomaly", "normal") for d in ("source", "target")}


def test_a_clip_without_a_recording_in_its_name_stands_for_itself(make: Callable[..., Path]) -> None:
    names = [f"a/test/section_00_source_test_normal_{n:04d}_flight_x-{n}.wav" for n in range(3)]
    root = make(
        "a/train/section_00_source_train_normal_0000_.wav", "a/test/section_00_source_test_anomaly_0000.wav", *names
    )
    assert recordings_of(read_tree(root)[0]) == {"anomaly source": 1, "normal source": 3}


def test_sections_are_judged_apart(make: Callable[..., Path]) -> None:
    root = make(
        *(
            f"fan/{split}/section_0{section}_source_{split}_{label}_0000_x.wav"
            for section in (0, 1)
            for split, label in (("train", "normal"), ("test", "normal"), ("test", "anomaly"))
        )
    )
    assert [machine.name for machine in read_tree(root)] == ["fan/section_00", "fan/section_01"]


def test_trees_of_2020_have_one_domain(make: Callable[..., Path]) -> None:
    root = make(
        "fan/train/normal_id_00_00000000.wav",
        "fan/test/normal_id_00_00000001.wav",
        "fan/test/anomaly_id_00_00000000.wav",
    )
    (fan,) = read_tree(root)
    assert not fan.target.any()
    assert {clip.domain for clip in fan.train} == {Domain.SOURCE}


TRAIN, NORMAL, ANOMALY = (
    f"fan/{split}/section_00_source_{split}_{label}_0000_x.wav"
    for split, label in (("train", "normal"), ("test", "normal"), ("test", "anomaly"))
)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([TRAIN, NORMAL], "no anomalous test clip"),
        ([TRAIN, ANOMALY], "no normal test clip"),
        ([TRAIN, NORMAL, ANOMALY, "pump/test/section_00_source_test_normal_0000.wav"], "pump .* no train clip"),
        ([TRAIN, NORMAL, ANOMALY, TRAIN.replace("train_normal", "train_anomaly")], "an anomalous train clip"),
        ([TRAIN, NORMAL, "fan/test/section_00_test_0000.wav"], "does not contain its condition"),
        ([TRAIN, NORMAL, "fan/test/noise.wav"], "no year"),
    ],
)
def test_what_cannot_be_judged_is_refused(make: Callable[..., Path], paths: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tree(make(*paths))


def test_a_missing_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder of machines at"):
        read_tree(tmp_path / "absent")
