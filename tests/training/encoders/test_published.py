"""Published checkpoint files: what is loaded, and what is refused and how."""

import os
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import torch

from training.encoders.ast import AST, ASTConfig
from training.encoders.base import CheckpointError
from training.encoders.beats import BEATs
from training.encoders.eat import EAT, SSLAM

ENCODERS: list[type[Any]] = [BEATs, EAT, SSLAM, AST]
NORM: dict[type[Any], str] = {
    BEATs: "encoder.layer_norm.weight",
    EAT: "model.blocks.1.norm1.weight",
    SSLAM: "model.blocks.1.norm1.weight",
    AST: "module.v.norm.weight",
}

each_encoder = pytest.mark.parametrize("kind", ENCODERS, ids=lambda kind: kind.name)
Form = Callable[[Any], dict[str, Any]]


def weights(form: dict[str, Any]) -> MutableMapping[str, Any]:
    found: MutableMapping[str, Any] = form.get("model", form)
    return found


class Code:
    """Unpickled in full, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[type[Any], Any], str]:
    """`refusal(kind, content)`: the message with which a file of that content is refused."""

    def load(kind: type[Any], content: Any) -> str:
        path = tmp_path / "weights.pt"
        torch.save(content, path)
        with pytest.raises(CheckpointError) as caught:
            kind.from_checkpoint(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    return load


@each_encoder
def test_a_published_file_gives_the_same_encoder(kind: type[Any], published_form: Form, tmp_path: Path) -> None:
    # The number of heads of a published AST follows from its width alone.
    encoder = AST(ASTConfig(dim=128, heads=2, depth=2, classes=5)) if kind is AST else kind.tiny(0)
    torch.save(published_form(encoder), tmp_path / "weights.pt")
    loaded = kind.from_checkpoint(tmp_path / "weights.pt")
    assert type(loaded) is kind
    assert loaded.config == encoder.config
    assert not loaded.training
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in loaded.state_dict().items())
    waveform = 0.1 * torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last = encoder.layers[-1]
        assert torch.equal(loaded(waveform, [last])[last], encoder.eval()(waveform, [last])[last])
        assert loaded.logits(loaded.front_end(waveform)).shape == (1, 5)


@each_encoder
def test_code_in_a_pickle_is_refused_and_not_run(
    kind: type[Any], published_form: Form, refusal: Callable[..., str], tmp_path: Path
) -> None:
    form = published_form(kind.tiny(0))
    form["extra"] = Code(tmp_path / "made")
    assert "not loaded" in refusal(kind, form)
    assert not (tmp_path / "made").exists()


@each_encoder
def test_missing_and_unexpected_keys_are_named(
    kind: type[Any], published_form: Form, refusal: Callable[..., str]
) -> None:
    name = NORM[kind]
    plain = name.removeprefix("model.").removeprefix("module.")
    form = published_form(kind.tiny(0))
    weight = weights(form).pop(name)
    assert f"missing: {plain}" in refusal(kind, form)
    weights(form)[name] = weight
    weights(form)["surprise.weight"] = weight
    assert "unexpected: surprise.weight" in refusal(kind, form)
    del weights(form)["surprise.weight"]
    weights(form)[name] = weight[:-1]
    assert f"of another shape: {plain} (31,) instead of (32,)" in refusal(kind, form)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@each_encoder
def test_weights_that_are_no_numbers_are_named(
    kind: type[Any], value: float, published_form: Form, refusal: Callable[..., str]
) -> None:
    form = published_form(kind.tiny(0))
    weights(form)[NORM[kind]][3] = value
    assert "NaN or infinite weights in " + NORM[kind].removeprefix("model.").removeprefix("module.") in refusal(
        kind, form
    )


@pytest.mark.parametrize(
    ("kind", "other"),
    [(kind, other) for kind in ENCODERS for other in (BEATs, EAT, AST) if not issubclass(kind, other)],
    ids=lambda kind: kind.name,
)
def test_another_architecture_is_named(
    kind: type[Any], other: type[Any], published_form: Form, refusal: Callable[..., str]
) -> None:
    form = published_form(other.tiny(0))
    if kind is AST:
        form = form["model"]  # AST files are plain state dicts
    elif other is AST:
        form = {"cfg": {}, "model": form}
    expected: dict[type[Any], str] = {BEATs: "BEATs", EAT: "EAT or SSLAM", AST: "AST"}
    assert f"it is a checkpoint of {expected[other]}" in refusal(kind, form)


@each_encoder
def test_what_is_no_checkpoint_is_refused(kind: type[Any], refusal: Callable[..., str], tmp_path: Path) -> None:
    refusal(kind, [1, 2, 3])
    refusal(kind, {"model": {"a": torch.zeros(1)}})
    assert "of an unknown architecture" in refusal(
        kind, {"a": torch.zeros(1)} if kind is AST else {"model": {"a": torch.zeros(1)}}
    )
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        kind.from_checkpoint(tmp_path / "absent.pt")
    for content in (b"", b"no checkpoint", b"PK\x03\x04 broken"):
        (tmp_path / "weights.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"weights\.pt"):
            kind.from_checkpoint(tmp_path / "weights.pt")


@each_encoder
def test_a_file_cut_short_is_refused(kind: type[Any], published_form: Form, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(published_form(kind.tiny(0)), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"weights\.pt"):
        kind.from_checkpoint(path)
