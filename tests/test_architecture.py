"""Directions of imports, dependencies of each package, sizes of files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for package in ("offkey", "service", "training") for path in (REPOSITORY / package).rglob("*.py"))
MAX_LINES = 420


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_the_directions_of_imports_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run(
        [lint, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stdout[-3_000:]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "service" / "domain").rglob("*.py")), ids=lambda p: p.name)
def test_the_domain_needs_numpy_alone(path: Path) -> None:
    """And the words of the API, which need nothing but the standard library."""
    for module in imports(path):
        top = module.split(".")[0]
        own = module.startswith("service.domain") or module in ("offkey.errors", "offkey.vocabulary")
        assert own or top in sys.stdlib_module_names or top == "numpy", module


@pytest.mark.parametrize("name", ["errors", "vocabulary", "keys"])
def test_the_words_of_the_api_need_the_standard_library_alone(name: str) -> None:
    for module in imports(REPOSITORY / "offkey" / f"{name}.py"):
        assert module.startswith("offkey.") or module.split(".")[0] in sys.stdlib_module_names, module


@pytest.mark.parametrize("module", ["service", "service.app", "service.cli", "offkey.client", "training.cli"])
def test_serving_never_loads_torch(module: str) -> None:
    found = run(f"import {module}, sys; sys.exit('torch' in sys.modules)")
    assert found.returncode == 0, found.stderr


def test_the_client_needs_no_model_runtime() -> None:
    found = run(
        "import offkey.client, sys; sys.exit(bool({'onnxruntime', 'hnswlib', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("module", ["service.encoder.session", "training.export"])
def test_the_model_runtime_reports_to_nobody(module: str, tmp_path: Path) -> None:
    """Its telemetry leaves the id of the device in the user's cache folder as soon as it is imported."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", f"import {module}"], env=environ, timeout=60, check=False)
    assert found.returncode == 0
    assert not list(tmp_path.rglob("*[Mm]icrosoft*"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_a_file_is_about_one_noun(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('"""') or not text, "a module has no docstring"
    assert len(text.splitlines()) <= MAX_LINES
