"""docs/reference/bundle.md and the code cannot part."""

import doctest
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from service.encoder import bundle as manifest
from service.encoder.bundle import Manifest, load_manifest
from training.importer.checks import LARGEST_DIM
from training.importer.command import app
from training.importer.source import LARGEST_MODEL

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "bundle.md").read_text(encoding="utf-8")
PARTS = [Manifest, *(getattr(manifest, name) for name in re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)[1:])]


def rows(section: str) -> list[list[str]]:
    text = re.split(rf"^### {section}$", PAGE, flags=re.MULTILINE)[1]
    lines = re.split(r"^#", text, flags=re.MULTILINE)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]


def models_of(kind: Any) -> set[type[BaseModel]]:
    found = {kind} if isinstance(kind, type) and issubclass(kind, BaseModel) else set()
    return found.union(*(models_of(part) for part in getattr(kind, "__args__", ())))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_field_is_listed_with_its_default(part: type[BaseModel]) -> None:
    listed = {field.strip("`"): default for field, _, default, _ in rows(part.__name__)}
    expected = {}
    for name, field in part.model_fields.items():
        if field.default is PydanticUndefined:
            expected[name] = ""
        else:
            text = str(field.default).replace("'", '"')
            text = {"None": "null", "()": "[]", '("batch", "samples")': '["batch", "samples"]'}.get(text, text)
            expected[name] = f"`{text}`"
    assert listed == expected
    assert all(meaning for _, _, _, meaning in rows(part.__name__))


def test_every_part_of_a_manifest_has_a_table() -> None:
    needed, seen = {Manifest}, set[type[BaseModel]]()
    while needed:
        part = needed.pop()
        seen.add(part)
        needed |= {model for field in part.model_fields.values() for model in models_of(field.annotation)} - seen
    assert set(PARTS) == seen


def test_every_option_of_the_import_is_listed_with_its_default() -> None:
    command = typer.main.get_command(app).commands["import"]  # type: ignore[attr-defined]
    options = {option.opts[0]: option for option in command.params if option.opts[0].startswith("--")}
    listed = dict(re.findall(r"^\| `(--[a-z-]+)` \| (.*?) \|", PAGE, re.MULTILINE))
    assert listed.keys() == options.keys() - {"--help"}
    for name, default in listed.items():
        if default.startswith("`"):
            assert str(options[name].default).removesuffix(".0") == default.strip("`")
        else:
            assert options[name].default in (None, False) or options[name].required


def test_limits_are_those_of_the_code() -> None:
    assert f"over {LARGEST_MODEL // 2**30} GiB" in PAGE
    assert f"more than {LARGEST_DIM:,} values" in PAGE


def test_the_command_works_as_shown(saved: Callable[[], Path]) -> None:
    path = saved().rename(saved().with_name("encoder.onnx"))
    block = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)[0]
    command, printed = re.findall(r"^\$ (offkey bundle .*)\n(.*\n)", block, re.MULTILINE)[0]
    offkey = f'{sys.executable} -m service.cli "$@"'
    found = subprocess.run(
        ["bash", "-c", f"offkey() {{ {offkey}; }}\n{command}"],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert doctest.OutputChecker().check_output(printed, found.stdout, 0)
    assert load_manifest(path.parent / printed.strip()).name == "own"


def test_what_the_import_writes_is_in_the_table_of_files(saved: Callable[[], Path], bundle: Path) -> None:
    listed = set(re.findall(r"^\| `([\w.]+)` \| (?:needed)? ?\|", PAGE, re.MULTILINE))
    shipped = {
        path.name.partition(".")[0] if path.name.startswith("LICENSE") else path.name for path in bundle.iterdir()
    }
    assert shipped <= listed
