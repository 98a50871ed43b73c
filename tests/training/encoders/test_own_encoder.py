"""An encoder outside Offkey: docs/how-to/own-encoder.md as it stands there, and what is refused."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rich.progress import Progress

from service.encoder.encoder import Encoder as Served
from service.settings import Device
from training.config import Config, ConfigError, EncoderConfig
from training.encoders import BEATs, CheckpointError, encoder_reference, find_encoder
from training.export import export_run
from training.factory import build_with, load_trained
from training.loop import resume, train
from training.reexport import reexport
from training.run import Run
from training.weights import read_weights, write_weights

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "own-encoder.md"
OWN = "my_encoder:SmallEncoder"
SMALL = {"mixtures = 2000": "mixtures = 24", "optim.steps=2000": "optim.steps=2 optim.batch=4"}


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    for published, small in SMALL.items():
        assert published in text
        text = text.replace(published, small)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the page's module and random weights of it, which nothing else can import afterward."""
    (tmp_path / "my_encoder.py").write_text(blocks("python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "my_encoder", raising=False)
    torch.save(find_encoder(OWN).tiny(0).state_dict(), tmp_path / "small-cnn.pt")
    (tmp_path / "LICENSE.small").write_text("Random weights belong to nobody.\n")
    yield tmp_path
    sys.modules.pop("my_encoder", None)


def _golden(folder: Path) -> None:
    """What the published code would give; the front end is Kaldi's, which has golden files of its own."""
    encoder = find_encoder(OWN).from_checkpoint(folder / "small-cnn.pt")
    waveform = torch.from_numpy(0.1 * np.random.default_rng(0).standard_normal((2, 16_000)).astype(np.float32))
    with torch.inference_mode():
        logmel = encoder.front_end(waveform)
        found = {"waveform": waveform, "logmel": logmel, "conv_1": encoder.grids(logmel, ["conv_1"])["conv_1"]}
    np.savez(folder / "golden.npz", **{name: value.numpy() for name, value in found.items()})


def _sounds(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("sounds/pump", "sounds/lathe", "noises/rain", "noises/street"):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            samples = 0.1 * rng.standard_normal(16_000 * 5)
            soundfile.write(folder / label / f"{number}.wav", samples, 16_000, subtype="FLOAT")


def _machines(folder: Path, fan: Callable[..., bytes]) -> None:
    """A tree with known faults, and clips of a machine to enroll and score."""
    for part, numbers, severity in (("train/normal", 6, 0), ("test/normal", 3, 0), ("test/anomaly", 3, 1)):
        place = folder / "machines" / "fan" / part
        place.mkdir(parents=True)
        for number in range(numbers):
            (place / f"{number}.wav").write_bytes(fan(number + 10 * len(part), severity=severity))
    (folder / "fan-1" / "normal").mkdir(parents=True)
    for number in range(4):
        (folder / "fan-1" / "normal" / f"{number}.wav").write_bytes(fan(number))
    (folder / "fan-1" / "today.wav").write_bytes(fan(9, severity=1.0))


@pytest.mark.timeout(300)  # nine commands, most of which load PyTorch
def test_the_page(folder: Path, fan: Callable[..., bytes], follow: Callable[[Path, list[str]], str]) -> None:
    _sounds(folder)
    _golden(folder)
    _machines(folder, fan)
    (folder / "student.toml").write_text(blocks("toml")[0])
    (folder / "check.py").write_text(blocks("python")[1])
    lines = ["$ python check.py", "logmel agrees", "conv_1 agrees"]
    lines += [line for block in blocks("console") for line in block.splitlines()]
    follow(folder, lines)
    card = (folder / "models" / "small-cnn" / "1" / "CARD.md").read_text()
    assert "Small CNN (its authors), https://example.org/small-cnn, MIT license (its text is in this folder)" in card


def test_the_golden_check_finds_a_wrong_front_end(folder: Path) -> None:
    _golden(folder)
    module = folder / "my_encoder.py"
    module.write_text(module.read_text().replace("scale=1.0", "scale=2.0"))
    (folder / "check.py").write_text(blocks("python")[1])
    found = subprocess.run([sys.executable, "check.py"], capture_output=True, text=True, check=True)
    assert re.search(r"logmel is off by [0-9.e+-]+ of its largest value\n", found.stdout)


def _trained(config: Config, folder: Path) -> Run:
    with Progress(disable=True) as progress:
        return train(config, "own", folder, progress)


def test_an_encoder_of_ones_own_goes_all_the_way(folder: Path, make_config: Callable[..., Config]) -> None:
    own = {"name": OWN, "checkpoint": str(folder / "small-cnn.pt")}
    readout = {"layers": ["conv_1"], "pooling": "mean", "mixtures": 24}
    config = make_config(folder / "cache", encoder=own, readout=readout, loop={"checkpoint_steps": 2})
    run = _trained(config, folder / "runs")
    shutil.rmtree(run.checkpoints[-1])  # as if it had been killed before its end
    with Progress(disable=True) as progress:
        resume(run, run.config, progress)
    assert load_trained(run)[1] == 3

    bundle = export_run(run, "own", "1", folder / "models")
    assert (bundle / "LICENSE.small").is_file()
    kind = find_encoder(OWN)
    for start in (bundle, run.folder):
        student = build_with(EncoderConfig(OWN, str(start)), "encoder", ["conv_1"], "mean")
        assert type(student.encoder) is kind
        with pytest.raises(CheckpointError, match=f"{OWN}, not efficientat-16k"):
            build_with(EncoderConfig("efficientat-16k", str(start)), "encoder", ["block_03"], "mean")
    assert Served(reexport(bundle, "2", OWN), Device.CPU).manifest.dim == 32 * 8

    taught = _trained(make_config(folder / "cache", teacher={**own, "layers": ["conv_0"]}), folder / "taught")
    assert taught.latest()[0]["projection.weight"].shape[0] == 64 * 4


def test_no_file_of_weights_decides_what_is_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "1").mkdir()

    class Stored:
        weights_sha256 = write_weights(find_encoder(OWN).tiny(0), folder / "1" / "encoder.safetensors")

    monkeypatch.setattr("training.weights.load_manifest", lambda _: Stored)
    del sys.modules["my_encoder"]
    with pytest.raises(CheckpointError, match=f"--encoder {OWN}"):
        read_weights(folder / "1")
    assert "my_encoder" not in sys.modules
    assert encoder_reference(type(read_weights(folder / "1", OWN))) == OWN

    monkeypatch.setattr("training.weights.encoder_reference", lambda _: "of-another-package")
    Stored.weights_sha256 = write_weights(find_encoder(OWN).tiny(0), folder / "1" / "encoder.safetensors")
    with pytest.raises(CheckpointError, match=r"not installed here\. There is no encoder 'of-another-package'"):
        read_weights(folder / "1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_encoders:SmallEncoder", "There is no module 'my_encoders' .`encoder.name` is 'my_encoders:SmallEncoder'."),
        ("my.own.module:SmallEncoder", "There is no module 'my'"),
        ("my_encoder:Small", "The module 'my_encoder' has no 'Small' .*my_encoder.py"),
        ("my_encoder:", "Write your own class as package.module:ClassName"),
        (".my_encoder:SmallEncoder", "Write your own class as package.module:ClassName"),
        ("my_encoder:torch", "my_encoder:torch is of type module, but not a subclass"),
        ("my_encoder:Path", "my_encoder:Path is a class, but not a subclass"),
        ("my_encoder:Encoder", "does not define from_checkpoint, grids, layer_shape, layers, min_samples, of_sizes"),
        ("my_encoder:Nameless", "my_encoder:Nameless does not set license, attribution"),
        ("my_encoder:Impostor", "has the name 'beats' of a built-in encoder"),
        ("small-cnn", "There is no encoder 'small-cnn' .`encoder.name`.. Encoders: ast, beats, .*module:ClassName"),
    ],
)
def test_what_is_no_encoder_is_refused(name: str, message: str, folder: Path) -> None:
    with (folder / "my_encoder.py").open("a") as file:
        file.write("\n\nclass Nameless(SmallEncoder):\n    license = ''\n    attribution = None\n")
        file.write("\n\nclass Impostor(SmallEncoder):\n    name = 'beats'\n")
    sys.modules.pop("my_encoder", None)
    with pytest.raises(ConfigError, match=message):
        find_encoder(name)


def test_what_the_module_itself_lacks_is_not_hidden(folder: Path) -> None:
    (folder / "broken_encoder.py").write_text("import a_package_that_is_absent\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_absent"):
        find_encoder("broken_encoder:SmallEncoder")


def test_the_working_folder_comes_after_what_is_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "colorsys.py").write_text("raise AssertionError\n")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(ConfigError, match="The module 'colorsys' has no 'SmallEncoder'"):
        find_encoder("colorsys:SmallEncoder")


@pytest.fixture
def install(folder: Path) -> Callable[[str, str, str], None]:
    """`install(package, name, value)`: metadata of an installed package that registers an encoder."""

    def write(package: str, name: str, value: str) -> None:
        place = folder / f"{package}-1.0.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (place / "entry_points.txt").write_text(f"[offkey.encoders]\n{name} = {value}\n")

    sys.path.append(str(folder))
    return write


def test_a_package_registers_a_name(install: Callable[[str, str, str], None]) -> None:
    install("their-encoders", "small-cnn", OWN)
    found = find_encoder("small-cnn")
    assert found is find_encoder(OWN)
    assert encoder_reference(found) == "small-cnn"
    assert encoder_reference(BEATs) == "beats"
    with pytest.raises(ConfigError, match=r"Encoders: ast, .*, small-cnn, sslam\."):
        find_encoder("smal-cnn")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("small-cnn", "my_encoder:Absent", "their-encoders registers the encoder 'small-cnn' .*cannot be loaded"),
        ("small-cnn", "absent:SmallEncoder", "their-encoders registers the encoder 'small-cnn' .*cannot be loaded"),
        ("tiny-cnn", OWN, "whose `name` is 'small-cnn'. The two must be equal"),
        ("beats", OWN, "'beats' .* is registered by offkey and their-encoders"),
    ],
)
def test_a_package_that_registers_wrongly_is_named(
    name: str, value: str, message: str, install: Callable[[str, str, str], None]
) -> None:
    install("their-encoders", name, value)
    with pytest.raises(ConfigError, match=message):
        find_encoder(name)


def test_two_packages_cannot_have_one_name(install: Callable[[str, str, str], None]) -> None:
    install("their-encoders", "small-cnn", OWN)
    install("our-encoders", "small-cnn", OWN)
    with pytest.raises(ConfigError, match=r"registered by our-encoders and their-encoders\. Uninstall all but one"):
        find_encoder("small-cnn")
    assert find_encoder(OWN).name == "small-cnn", "the path still works"
