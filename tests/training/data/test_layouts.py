"""Errors of each layout, and parts of names; the examples of docs/how-to/training-data.md test what layouts read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from training.data.catalog import DataError
from training.data.layouts import read_collections
from training.data.layouts.collection import Collection, audio_files
from training.data.layouts.dcase import DcaseName
from training.data.windows import AudioCache


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("normal_id_00_00000000", DcaseName("00", "00000000", condition="normal")),
        ("anomaly_id_06_00000012", DcaseName("06", "00000012", condition="anomaly")),
        ("id_01_00000003", DcaseName("01", "00000003")),
        ("section_05_target_test_anomaly_0042", DcaseName("05", "0042", "target", "test", "anomaly")),
        ("section_03_source_test_0007", DcaseName("03", "0007", "source", "test")),
        ("section_00_test_0199", DcaseName("00", "0199", "", "test")),
        ("section_03_0199", DcaseName("03", "0199")),
        ("section_00_source_train_normal_0000_", DcaseName("00", "0000", "source", "train", "normal")),
        (
            "section_00_source_train_normal_0326_car_A1_spd_28V",
            DcaseName("00", "0326", "source", "train", "normal", "car_A1_spd_28V"),
        ),
        (
            "section_00_target_test_normal_0001_noAttribute",
            DcaseName("00", "0001", "target", "test", "normal", "noAttribute"),
        ),
        ("section_00_noise_supplemental_normal_0000", DcaseName("00", "0000", "noise", "supplemental", "normal")),
        ("section_00_supplemental_noise_0004", DcaseName("00", "0004", "noise", "supplemental")),
        ("section_00_supplemental_clean_0004_v_1", DcaseName("00", "0004", "", "supplemental", "", "v_1")),
        ("section_00_source_trian_normal_0000", None),
        ("normal_id_00", None),
        ("recording", None),
    ],
)
def test_names_of_every_year(stem: str, name: DcaseName | None) -> None:
    assert DcaseName.parse(stem) == name


@given(
    section=st.integers(0, 99),
    domain=st.sampled_from(["source", "target", ""]),
    split=st.sampled_from(["train", "test"]),
    condition=st.sampled_from(["normal", "anomaly", ""]),
    number=st.integers(0, 9999),
    attributes=st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="_-.")),
)
def test_a_name_says_what_it_was_made_of(
    section: int, domain: str, split: str, condition: str, number: int, attributes: str
) -> None:
    parts = [f"section_{section:02d}", domain, split, condition, f"{number:04d}"]
    stem = "_".join(part for part in parts if part) + f"_{attributes}"
    assert DcaseName.parse(stem) == DcaseName(f"{section:02d}", f"{number:04d}", domain, split, condition, attributes)


def test_only_the_train_split_of_a_tree_is_read_by_default(write_clips: Callable[..., Path]) -> None:
    root = write_clips(
        "fan/train/section_00_source_train_normal_0000_.wav",
        "fan/source_test/section_00_source_test_0000.wav",
        "fan/target_test/section_00_target_test_anomaly_0000.wav",
        "fan/test/section_00_test_0000.wav",
    )

    def read(**keys: tuple[str, ...]) -> list[tuple[str, str, str]]:
        found = read_collections([Collection(layout="dcase", path=str(root), **keys)])
        return [(clip.split, clip.domain, clip.condition) for clip in found.clips]

    assert read() == [("train", "source", "normal")]
    assert read(splits=("test",)) == [("test", "source", ""), ("test", "target", "anomaly"), ("test", "", "")]
    assert read(splits=("test",), domains=("target",)) == [("test", "target", "anomaly")]
    with pytest.raises(DataError, match="no split supplemental; it has test, train"):
        read(splits=("supplemental",))
    with pytest.raises(DataError, match="no domain targte; it has source"):
        read(domains=("targte",))


def test_trees_of_another_shape_are_refused(write_clips: Callable[..., Path]) -> None:
    root = write_clips("fan/train/normal_id_00_00000000.wav", "fan/train/some.wav")
    with pytest.raises(DataError, match=r"some\.wav has a name of no year"):
        read_collections([Collection(layout="dcase", path=str(root))])
    with pytest.raises(DataError, match="is not at <machine>/<split>/<name>"):
        read_collections([Collection(layout="dcase", path=str(root / "fan"))])


def test_near_and_far_are_the_left_and_the_right_channel(tmp_path: Path, write_clips: Callable[..., Path]) -> None:
    name = "pump/train/section_00_source_train_normal_0000_.wav"
    root = write_clips(f"tree/{name}", channels=2) / "tree"
    samples, _ = soundfile.read(root / name, dtype="float32")
    audio = AudioCache(tmp_path / "cache", 16_000)
    expected = {"near": samples[:, 0], "1": samples[:, 1], "far": samples[:, 1], "": samples.mean(axis=1)}
    keys = set()
    for channel, samples in expected.items():
        found = read_collections([Collection(layout="dcase", path=str(root), channel=channel)])
        window = audio.windows(found.clips, seconds=0.2)
        assert np.allclose(audio.batch(window)[0].numpy(), samples, atol=1e-6), channel
        keys.add(window[0].key)
    assert len(keys) == 3  # far is 1
    found = read_collections([Collection(layout="dcase", path=str(root), channel="2")])
    with pytest.raises(DataError, match="no channel 2: it has 2, counted from 0"):
        audio.windows(found.clips, seconds=0.2)
    with pytest.raises(DataError, match="near, far or a number from 0, not 'left'"):
        read_collections([Collection(layout="dcase", path=str(root), channel="left")])


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "notes.txt").write_text("none yet")
    (tmp_path / "noise" / ".hidden.wav").write_text("a file manager's")
    with pytest.raises(DataError, match=r"noise has no audio file"):
        read_collections([Collection(layout="folder", path=str(tmp_path / "noise"), role="noise")])
    with pytest.raises(DataError, match=r"There is nothing at '.*nosie'"):
        read_collections([Collection(layout="folder", path=str(tmp_path / "nosie"))])


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path: Path, write_clips: Callable[..., Path]) -> None:
    """Folders that lie elsewhere, one behind two names, one that leads back to where it is, and one to nowhere."""
    elsewhere = write_clips("elsewhere/train/section_00_source_train_normal_0000_.wav")
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("fan", "pump"):
        (root / name).symlink_to(elsewhere / "elsewhere")
    (elsewhere / "elsewhere" / "train" / "above").symlink_to(root)
    (elsewhere / "elsewhere" / "train" / "itself").symlink_to(elsewhere / "elsewhere" / "train")
    (root / "gone.wav").symlink_to(tmp_path / "absent.wav")
    (root / ".hidden").symlink_to(elsewhere / "elsewhere")
    name = "train/section_00_source_train_normal_0000_.wav"
    assert [path.relative_to(root).as_posix() for path in audio_files(root)] == [f"fan/{name}", f"pump/{name}"]
    clips = read_collections([Collection(layout="dcase", path=str(root))]).clips
    assert [(clip.label, clip.path) for clip in clips] == [
        (machine, (elsewhere / "elsewhere" / name).resolve()) for machine in ("fan", "pump")
    ]


def test_clips_in_no_subfolder_have_the_name_of_the_folder(write_clips: Callable[..., Path]) -> None:
    root = write_clips("street/a.wav", "street/b.FLAC.wav") / "street"
    found = read_collections([Collection(layout="folder", path=str(root), license="CC0-1.0", permissive=True)])
    assert {clip.labels for clip in found.clips} == {("street",)}
    assert {(clip.set, clip.license, clip.permissive, clip.source) for clip in found.clips} == {
        ("street", "CC0-1.0", True, "street")
    }


def test_a_label_file_that_names_absent_clips_is_refused(write_clips: Callable[..., Path]) -> None:
    root = write_clips("audio/1.wav")
    listing = root / "dev.csv"
    listing.write_text("fname,labels\n" + "".join(f"{number},hum\n" for number in range(1, 9)))
    with pytest.raises(DataError, match=r"dev\.csv names 7 missing clips; the first ones are dev/2, dev/3, dev/4\."):
        read_collections([Collection(layout="labels", path=str(listing), audio="audio")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fname,label\n1,hum\n", "no column labels"),
        ("fname,labels\n1,\n", "no label for 1"),
        ("fname,labels\n1\n", "Row 1 .* is truncated"),
        ("fname,labels\n2,hum\n", r"names 2, but there are .*2\.flac and .*2\.wav\. Add the suffix"),
        (b"fname,labels\n\xff,hum\n", "not a CSV file in UTF-8"),
    ],
)
def test_damaged_label_files_are_named(text: str | bytes, message: str, write_clips: Callable[..., Path]) -> None:
    root = write_clips("audio/1.wav", "audio/2.wav", "audio/2.flac")
    (root / "dev.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        read_collections([Collection(layout="labels", path=str(root / "dev.csv"), audio="audio")])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('abc, 0.0, 10.0, "/m/1,/m/3"', r"Line 2 .* has the label /m/3, which is not in class_labels"),
        ("abc, 0.0, 10.0", "Line 2 .* has 3 fields, not 4"),
        ('gone, 0.0, 10.0, "/m/1"', r"names 1 missing clips; the first ones are eval/gone"),
    ],
)
def test_damaged_segment_files_are_named(row: str, message: str, write_clips: Callable[..., Path]) -> None:
    root = write_clips("audio/abc.wav")
    (root / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/1,Hum\n")
    (root / "eval.csv").write_text(f"# comment\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_collections([Collection(layout="audioset", path=str(root / "eval.csv"), audio="audio")])


def test_a_key_without_meaning_and_an_unknown_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="splits, channel is not used by the layout 'manifest'"):
        read_collections([Collection(path="m.csv", splits=("train",), channel="near")])
    with pytest.raises(DataError, match="There is no layout 'ecs50'; the nearest is 'esc50'"):
        read_collections([Collection(layout="ecs50", path=str(tmp_path))])
