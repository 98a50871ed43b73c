"""Who has the turn at arithmetic waits for nothing, and gives it back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.bank import Bank
from service.audio.processes import Decoders
from service.encoder.per_thread import PerThreadRunner
from service.turns import turn
from service.usecases import clip as clips

FAN = {"machine_id": "fan-1"}


def watched(of: Any, name: str, seen: list[tuple[str, bool]], patch: pytest.MonkeyPatch) -> None:
    """Note whether somebody has the turn while a function runs."""
    real = getattr(of, name)

    def run(*given: Any, **named: Any) -> Any:
        seen.append((name, turn.locked()))
        return real(*given, **named)

    patch.setattr(of, name, run)


def test_nobody_has_it_over_the_model_a_search_or_a_child(
    fan_api: TestClient,
    fan: Callable[..., bytes],
    encode: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, bool]] = []
    for of, name in ((clips, "read_pcm"), (clips, "measure")):
        watched(of, name, seen, monkeypatch)
    for of, name in ((Decoders, "decode"), (PerThreadRunner, "_session"), (Bank, "score")):
        watched(of, name, seen, monkeypatch)
    strange = encode(np.random.default_rng(0).normal(0, 0.1, 96_000), 48_000)  # goes to a child
    assert fan_api.post("/score", params=FAN, content=fan(7)).status_code == 200
    assert fan_api.post("/score", params=FAN, content=strange).status_code == 200
    assert dict(seen) == {"read_pcm": True, "measure": True, "decode": False, "_session": False, "score": False}
    assert not turn.locked()


def test_a_failure_gives_it_back(
    fan_api: TestClient, fan: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(clips, "measure", lambda *given, **named: 1 / 0)
        assert fan_api.post("/score", params=FAN, content=fan(7)).status_code == 500
    assert fan_api.post("/score", params=FAN, content=fan(7)).status_code == 200
