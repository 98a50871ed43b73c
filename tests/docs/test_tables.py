"""The tables in docs/reference/ match the code."""

import re
from pathlib import Path

from fastapi.testclient import TestClient

from service.domain.backends import BACKENDS, DEFAULT_BACKEND
from service.http.problems import PROBLEMS
from service.settings import Limits, Settings

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def rows(page: str) -> list[list[str]]:
    lines = (REFERENCE / page).read_text().splitlines()
    return [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")
    ]


def test_every_setting_is_documented_with_its_default() -> None:
    shown = {name: (default, text) for name, default, text in rows("settings.md") if name.startswith("OFFKEY_")}
    assert set(shown) == {f"OFFKEY_{name}".upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default, text = shown[f"OFFKEY_{name}".upper()]
        assert text == field.description
        if field.default_factory is None:
            assert default == ("none" if field.default is None else str(field.default))


def test_every_limit_that_can_be_changed_is_documented_with_its_default() -> None:
    shown = {name: (default, text) for name, default, text in rows("settings.md") if not name.startswith("OFFKEY_")}
    assert shown == {name: (str(field.default), field.description) for name, field in Limits.model_fields.items()}


def test_info_and_the_documentation_have_the_same_fixed_limits(api: TestClient, settings: Settings) -> None:
    reported = api.get("/info").json()["limits"]
    of_settings = {*settings.reported_limits(), "workers"}  # measured if it is not set
    assert of_settings <= set(reported)
    fixed = {name: str(value) for name, value in reported.items() if name not in of_settings}
    assert {name: value for name, value, _ in rows("limits.md")} == fixed


def test_every_backend_is_documented() -> None:
    text = (REFERENCE / "scoring.md").read_text(encoding="utf-8").split("## Backends")[1].split("\n## ")[0]
    shown = re.findall(r"^\| `([a-z-]+)`( \(default\))? \|", text, re.MULTILINE)
    assert shown == [(name, " (default)" if name == DEFAULT_BACKEND else "") for name in BACKENDS]


def test_every_problem_is_documented() -> None:
    shown = {kind: (status, title) for kind, status, title in rows("errors.md")}
    assert shown == {kind.value: (str(status), title) for kind, (status, title) in PROBLEMS.items()}
