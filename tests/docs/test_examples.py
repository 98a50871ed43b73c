"""Every console example in README.md and docs/ is run, in order, and must print what it shows.

`...` in an expected output stands for anything.
"""

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": None,
    "docs/scoring.md": "README.md",
    "docs/shift.md": "README.md",
    "docs/jobs.md": "README.md",
    "docs/deploy.md": None,
    "docs/security.md": None,
    "docs/experiments/README.md": None,
}  # page -> page whose examples come first


def examples(page: str) -> list[tuple[str, str]]:
    """(command, expected output) of the console blocks of a page."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_console_examples(page: str, serve: Callable[..., str], bundle: Path, tmp_path: Path) -> None:
    before = PAGES[page]
    commands = [*(examples(before) if before else []), *examples(page)]
    assert commands
    address = serve(tmp_path / "data").removeprefix("http://")
    folder = tmp_path
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "OFFKEY_BUNDLE": str(bundle)}
    checker = doctest.OutputChecker()
    for command, expected in commands:
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
            continue
        found = subprocess.run(
            ["bash", "-c", command.replace("localhost:8000", address)],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert found.returncode == 0, (command, found.stderr)
        printed = found.stdout + "\n" * (found.stdout[-1:] not in ("", "\n"))
        assert checker.check_output(expected, printed, doctest.ELLIPSIS), f"{command}\nprinted {printed}"


def test_the_tour_is_short() -> None:
    assert len(examples("README.md")) <= 10


def test_python_examples(serve: Callable[..., str], tmp_path: Path) -> None:
    script = "\n".join(re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL))
    url = serve(tmp_path / "data")
    prepare = (
        "from pathlib import Path\nfrom offkey.client import Client\n"
        "from service.synthetic import plan_tree, write_tree\n"
        f"clips = plan_tree(['fan-synthetic'], train_source=3, train_target=0, test_each=0)\n"
        f"write_tree(Path('.'), clips)\n"
        f"paths = sorted(Path('.').rglob('*.wav'))\nclient = Client({url!r})\nclient.put_machine('fan-1')\n"
        "client.enroll('fan-1', paths)\npaths[0].rename('clip.wav')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", prepare + script.replace("http://127.0.0.1:8000", url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    score, threshold, is_anomalous = found.stdout.split()
    assert float(score) <= float(threshold)
    assert is_anomalous == "False"
