"""The tables in docs/ and the code they describe cannot part."""

import re
from pathlib import Path

from fastapi.testclient import TestClient

from service.http.problems import PROBLEMS
from service.settings import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows(page: str) -> list[list[str]]:
    lines = (DOCS / page).read_text().splitlines()
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


def test_info_and_the_documentation_tell_the_same_limits(api: TestClient, settings: Settings) -> None:
    reported = api.get("/info").json()["limits"]
    shown = {name: value for name, value, _ in rows("settings.md")}
    fixed = {name: value for name, value in shown.items() if not name.startswith("OFFKEY_")}
    of_settings = {*settings.reported_limits(), "workers"}  # found out where it is not set
    assert {name: str(value) for name, value in reported.items() if name not in of_settings} == fixed
    assert {f"OFFKEY_{name}".upper() for name in settings.reported_limits()} <= set(shown)


def test_every_problem_is_documented() -> None:
    shown = {kind: (status, title) for kind, status, title in rows("errors.md")}
    assert shown == {kind.value: (str(status), title) for kind, (status, title) in PROBLEMS.items()}


def test_links_between_pages_lead_somewhere() -> None:
    pages = [DOCS.parent / "README.md", DOCS.parent / "CHANGELOG.md", *DOCS.rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
