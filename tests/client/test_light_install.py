"""`pip install offkey` without extras: the client works, and commands of the service name the extra they need."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]

HIDE = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def installed_with(requirements: list[str]) -> set[str]:
    """Return the names of the distributions that pip installs for requirements, with those they need."""
    found: set[str] = set()
    pending = [Requirement(text) for text in requirements]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        pending += map(Requirement, distribution(name).requires or ())
    return found


@pytest.fixture(scope="session")
def light() -> Run:
    """`light(code)` runs Python code where only the dependencies of a plain installation can be imported."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    base = installed_with(project["dependencies"]) | {"offkey"}
    hidden = {
        module
        for module, names in packages_distributions().items()
        if not base & {canonicalize_name(name) for name in names} and re.fullmatch(r"\w+", module)
    }
    assert {"numpy", "onnxruntime", "hnswlib", "fastapi", "sqlalchemy", "soundfile", "torch"} <= hidden
    hook = HIDE.format(hidden=hidden)

    def run(code: str) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-c", hook + code]
        return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)

    return run


def command(light: Run, *words: str) -> "subprocess.CompletedProcess[str]":
    return light(f"sys.argv = ['offkey', *{words!r}]\nfrom service.cli import main\nmain()")


def test_every_public_name_is_there(light: Run) -> None:
    done = light("import offkey\nfor name in offkey.__all__: getattr(offkey, name)\nprint(offkey.Client().url)")
    assert done.stdout == "http://127.0.0.1:8000\n", done.stderr


def test_importing_the_package_loads_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, offkey; print({'httpx2', 'pydantic', 'typer'} & set(sys.modules))"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "set()\n", done.stderr


def test_the_help_lists_all_commands(light: Run) -> None:
    done = command(light, "--help")
    assert done.returncode == 0, done.stderr
    for name in ("serve", "enroll", "score", "machines", "keys", "demo", "verify", "train"):
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)


def test_a_client_command_gets_as_far_as_the_connection(light: Run) -> None:
    done = command(light, "info", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "No answer from http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("serve",), "service"),
        (("demo", "--once"), "service"),
        (("synthesize", "nowhere"), "service"),
        (("verify", "nowhere"), "service"),
        (("restore", "nowhere"), "service"),
        (("snapshot", "nowhere"), "service"),
        (("keys", "create", "ops", "--scope", "admin"), "service"),
        (("keys", "list"), "service"),
        (("train", "nowhere.toml"), "train"),
        (("evaluate", "nowhere"), "train"),
        (("experiment",), "train"),
    ],
)
def test_another_command_names_the_extra_it_needs(light: Run, words: tuple[str, ...], extra: str) -> None:
    done = command(light, *words)
    assert done.returncode == 1
    assert f"pip install 'offkey[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (REPOSITORY / "nowhere").exists()


def test_an_import_error_of_our_own_is_not_hidden(light: Run) -> None:
    done = light("""
sys.argv = ["offkey", "info"]
from service import cli
def broken(): import service.nowhere
cli.app = broken
cli.main()
""")
    assert "No module named 'service.nowhere'" in done.stderr
    assert "pip install" not in done.stderr
