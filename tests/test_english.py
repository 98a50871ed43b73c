"""The English check of `make lint` finds planted faults and accepts plain text."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).resolve().parent.parent / ".ci" / "check_english.py"

FAULTY = '''"""Scores that hang
on the bank."""

class Row(NamedTuple):
    """One row.

    Attributes:
        key: of the machine.
        name: file name.
    """

    key: int
    name: str | None  # None: no file
    size: int  # in bytes, when it
    # is known

def heard(count: int = Query(description="how many clips")) -> int:
    """Return the count.

    Returns:
        That many.
    """
    # The store is asked
    # for of late.
    raise ValueError(f"{count} clips: normalise them, as the header says")
'''

PLAIN = '''"""Scores that depend on the bank; `heard` is quoted code. Based on machine learning."""

class Row(NamedTuple):
    """One row.

    Args:
        key: machine key.

    Raises:
        OffkeyError: in no case of the kind.
    """

    name: str | None  # file name, None if there is no file
    weight: float  # share of learned embeddings, whether normalized or not
    # No file is left behind. The student learned to tolerate masks; see `--beside OTHER`, and the option --beside it.

HEADERS = {"of": "of two"}
'''


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_english", CHECK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_planted_fault_is_found_in_its_line(check) -> None:
    found, fields = check.check_python(FAULTY)
    assert sorted((finding.line, finding.rule) for finding in found) == [
        (1, "phrases"),
        (8, "dangling"),
        (13, "phrases"),
        (14, "dangling"),
        (17, "dangling"),
        (17, "identifiers"),
        (21, "dangling"),
        (23, "people-verbs"),
        (23, "phrases"),
        (24, "phrases"),
        (25, "people-verbs"),
        (25, "spelling"),
    ]
    assert fields == 6


def test_plain_text_has_no_findings(check) -> None:
    assert check.check_python(PLAIN) == ([], 3)


def test_code_and_addresses_in_markdown_are_skipped(check, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Run `told` or [this](heard.md).\n\n```sh\nasked for\n```\n\nThe bank knows it.\n")
    assert [(finding.line, finding.rule) for finding in check.check_file(page)[0]] == [(7, "people-verbs")]


def test_the_history_of_releases_is_skipped(check, tmp_path: Path) -> None:
    page = tmp_path / "CHANGELOG.md"
    page.write_text("## Unreleased\n\nBuilt anew.\n\n## 0.1.0\n\nBuilt anew.\n")
    assert [finding.line for finding in check.check_file(page)[0]] == [3]


@pytest.mark.parametrize(("text", "status"), [("# built anew\n", 1), ("# built again\nname = 'anew'\n", 0)])
def test_comments_of_a_toml_file_decide_the_exit_status(tmp_path: Path, text: str, status: int) -> None:
    (tmp_path / "settings.toml").write_text(text)
    done = subprocess.run(
        [sys.executable, CHECK, tmp_path / "settings.toml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert ("settings.toml:1: 'anew'" in done.stdout) == bool(status)
