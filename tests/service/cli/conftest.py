"""The command in this process: Python and its libraries take half a second to load, hundreds of times over.

The examples of README.md and docs/ run it as users do, and so do the tests of how it starts and ends.
"""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import pytest

from service.cli import main


@pytest.fixture
def offkey(monkeypatch: pytest.MonkeyPatch) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """`offkey(*arguments, **environ)` runs a command that ends by itself, with no other OFFKEY_* than is given."""

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
