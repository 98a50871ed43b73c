"""Every backend serves: it is named in answers, and finds a fault."""

from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError

from launch import in_process
from service.domain.backends import BACKENDS, DEFAULT_BACKEND
from service.settings import Settings

FAN = {"machine_id": "fan-1"}
Fan = Callable[..., bytes]


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_backend_is_reported_and_finds_a_fault_by_exact_search_and_by_hnsw(
    settings: Settings, fan: Fan, backend: str
) -> None:
    found = []
    for limit in (10_000, 1):
        with in_process(settings.data_dir / str(limit), workers=2, backend=backend, exact_limit=limit) as api:
            assert api.get("/info").json()["backend"] == backend
            assert api.put("/machines/fan-1").status_code == 201
            for domain, count in (("source", 8), ("target", 2)):
                files = [("clips", (f"{number}.wav", fan(number, domain=domain))) for number in range(count)]
                assert api.post("/enroll", params={**FAN, "domain": domain}, files=files).status_code == 201
            files = [("clips", (f"{severity}.wav", fan(90, severity))) for severity in (0.0, 1.0)]
            answer = api.post("/score", params={**FAN, "neighbors": 3}, files=files).json()
            assert answer["backend"] == backend
            assert all(len(window["neighbors"]) == 3 for clip in answer["clips"] for window in clip["windows"])
            found.append([clip["anomaly_score"] for clip in answer["clips"]])
    assert found[0][0] < found[0][1]
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)


def test_an_unknown_backend_is_refused_and_the_nearest_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().backend == DEFAULT_BACKEND
    monkeypatch.setenv("OFFKEY_BACKEND", "mahalonobis")
    with pytest.raises(ValidationError, match=r"no backend 'mahalonobis'\. Did you mean mahalanobis"):
        Settings()
