import csv
import re
from collections import Counter

import numpy as np
import pytest
import soundfile

from service.synthetic import MACHINES, plan_tree, write_tree

NAME = re.compile(
    r"(?P<machine>[a-z]+-synthetic)/(?P<split>train|test)/section_00_(?P<domain>source|target)_"
    r"(?P<in_name>train|test)_(?P<label>normal|anomaly)_(?P<number>\d{4})_"
    r"speed_(?P<speed>\d+)_severity_(?P<severity>\d+)\.wav"
)


def parse(path) -> dict[str, str]:
    match = NAME.fullmatch(path.as_posix())
    assert match, path
    assert match["split"] == match["in_name"]
    return match.groupdict()


def test_a_plan_holds_the_promised_counts():
    names = [parse(clip.path) for clip in plan_tree(train_source=4, train_target=2, test_each=3)]
    counts = Counter((n["machine"], n["split"], n["domain"], n["label"]) for n in names)
    assert counts == {
        (machine, split, domain, label): count
        for machine in MACHINES
        for split, domain, label, count in [
            ("train", "source", "normal", 4),
            ("train", "target", "normal", 2),
            ("test", "source", "normal", 3),
            ("test", "source", "anomaly", 3),
            ("test", "target", "normal", 3),
            ("test", "target", "anomaly", 3),
        ]
    }


def test_paths_are_unique_and_numbers_start_at_0():
    clips = plan_tree()
    assert len({clip.path for clip in clips}) == len(clips) == 4 * (20 + 5 + 4 * 6)
    assert [clip.number for clip in clips[:20]] == list(range(20))


def test_faulty_clips_take_the_severities_in_turn():
    clips = plan_tree(["pump-synthetic"], test_each=4, severities=(30, 100))
    faulty = [clip.severity for clip in clips if clip.label == "anomaly" and clip.domain == "source"]
    assert faulty == [30, 100, 30, 100]
    assert {clip.severity for clip in clips if clip.label == "normal"} == {0}


def test_names_hold_speed_and_severity():
    clip = next(c for c in plan_tree(["fan-synthetic"], severities=(70,)) if c.severity)
    assert clip.path.name == "section_00_source_test_anomaly_0000_speed_1480_severity_70.wav"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"machine_ids": ["fan"]}, "No synthetic machine 'fan'. There are: fan-synthetic, gearbox"),
        ({"test_each": -1}, "test_each=-1"),
        ({"severities": ()}, "at least one"),
        ({"severities": (0,)}, "above 0"),
        ({"severities": (130,)}, "up to 100"),
    ],
)
def test_an_impossible_plan_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_tree(**arguments)


@pytest.fixture(scope="module")
def plan():
    return plan_tree(
        ["fan-synthetic", "bearing-synthetic"], train_source=1, train_target=1, test_each=1, severities=(60,)
    )


@pytest.fixture(scope="module")
def tree(plan, tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "machines"
    write_tree(root, plan, seed=4)
    return root


def test_the_tree_holds_what_was_planned(tree, plan):
    written = {path.relative_to(tree).as_posix() for path in tree.rglob("*.wav")}
    assert written == {clip.path.as_posix() for clip in plan}
    for path in written:
        assert NAME.fullmatch(path)


def test_files_are_ten_seconds_of_16_bit_mono_at_16_khz(tree, plan):
    for clip in plan:
        info = soundfile.info(tree / clip.path)
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (16_000, 1, 160_000, "PCM_16")


def test_a_file_holds_its_clip(tree, plan):
    clip = next(clip for clip in plan if clip.severity)
    machine = MACHINES[clip.machine_id]
    expected = machine.clip(split="test", domain=clip.domain, number=0, severity=0.6, seed=4)
    samples, _ = soundfile.read(tree / clip.path, dtype="float32")
    np.testing.assert_allclose(samples, expected, atol=1 / 2**15)


def test_every_file_and_the_tree_are_marked_as_synthetic(tree, plan):
    assert (tree / "README.txt").read_text().startswith("Synthetic machines, made by Offkey. No recording.")
    for clip in plan:
        with soundfile.SoundFile(tree / clip.path) as file:
            assert file.title == MACHINES[clip.machine_id].title
            assert file.comment == "Synthetic, made by Offkey. No recording."


def test_attributes_are_listed_per_machine(tree, plan):
    with (tree / "bearing-synthetic" / "attributes_00.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [
        clip.path.as_posix() for clip in plan if clip.machine_id == "bearing-synthetic"
    ]
    for row in rows:
        name = NAME.fullmatch(row["file_name"])
        assert name
        assert (row["d1p"], row["d1v"]) == ("speed", name["speed"])
        assert (row["d2p"], row["d2v"]) == ("severity", name["severity"])


def test_the_callback_gets_each_clip_and_a_second_tree_is_the_same(tree, plan, tmp_path):
    seen = []

    def on_written(path):
        assert path.stat().st_size > 320_000
        seen.append(path)

    write_tree(tmp_path, plan, seed=4, on_written=on_written)
    assert seen == [tmp_path / clip.path for clip in plan]
    for clip in plan:
        assert (tmp_path / clip.path).read_bytes() == (tree / clip.path).read_bytes()


def test_another_seed_writes_another_tree(tree, plan, tmp_path):
    write_tree(tmp_path, plan[:1], seed=5)
    assert (tmp_path / plan[0].path).read_bytes() != (tree / plan[0].path).read_bytes()
