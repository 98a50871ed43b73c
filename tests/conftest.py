"""Fixtures that tests of more than one folder use. Those about one subject are in tests/fixtures."""

import gc
import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from service.cli import main
from service.settings import shipped_bundle

pytest_plugins = ["audio", "bundles", "flac", "launch", "stores"]

# Otherwise measured at each first start. The tests of the measurement set it to 0.
os.environ.setdefault("OFFKEY_LIMITS", '{"run_threads": 1}')
# As `offkey serve` does. With more threads on busy cores, a Cholesky factor takes 400 ms and not 2.
threadpool_limits(1, user_api="blas")
# Traces and fits create millions of objects. Searching them for cycles took a tenth of the time of the tests.
gc.set_threshold(100_000, 20, 100)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of development recordings, encoders and golden vectors, which are not in the repository."""
    folder = Path(os.environ.get("OFFKEY_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"the development data is not at {folder} (set OFFKEY_SHARED to point elsewhere)")
    return folder


@pytest.fixture(scope="session")
def bundle() -> Path:
    """Return the bundle that ships with the service."""
    return shipped_bundle()


@pytest.fixture
def offkey(monkeypatch: pytest.MonkeyPatch) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """`offkey(*arguments, **environ)` runs a command that ends by itself, with only the given variables OFFKEY_*.

    It runs in this process, because Python and its libraries take half a second to load. The examples of README.md and
    docs/ are run as users run them, and so are the tests of how a process starts and ends.
    """

    def run(*arguments: object, **environ: str) -> "subprocess.CompletedProcess[str]":
        words = ["offkey", *map(str, arguments)]
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in [name for name in os.environ if name.startswith("OFFKEY_")]:
                patch.delenv(name)
            for name, value in {"COLUMNS": "200", **environ}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", words)
            try:
                status = main()
            except SystemExit as end:
                status = end.code
            if isinstance(status, str):  # as the interpreter does
                sys.stderr.write(f"{status}\n")
                status = 1
        return subprocess.CompletedProcess(words, int(status or 0), out.getvalue(), err.getvalue())

    return run
