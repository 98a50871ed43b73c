"""Runs every console example in README.md and docs/, in order; each must print what the page shows.

`...` in an expected output matches anything.
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from launch import as_process

REPOSITORY = Path(__file__).resolve().parents[2]
TOUR = "README.md"
AFTER_THE_TOUR = [
    "docs/reference/scoring.md",
    "docs/how-to/false-alarms.md",
    "docs/how-to/archives-and-jobs.md",
    "docs/how-to/new-model.md",
]
ALONE = ["docs/how-to/deploy.md", "docs/how-to/keys.md"]
START = "docs/getting-started.md"
EXPERIMENTS = "docs/experiments/README.md"
BY_TRAINING_TESTS = ["docs/how-to/train-a-student.md", "docs/how-to/own-encoder.md", "docs/reference/bundle.md"]
# `offkey` with fewer synthetic clips: the default number takes half a minute to make and to embed.
FEW_CLIPS = f"""#!{sys.executable}
import functools
from service import synthetic
synthetic.plan_tree = functools.partial(synthetic.plan_tree, train_source=4, train_target=2, test_each=2)
from service.cli import main
main()
"""

Example = tuple[str, str]  # command, expected output


@dataclass(frozen=True)
class Tour:
    """The state of a reader who has followed the README.

    Attributes:
        home: folder in which the tour began.
        folder: folder in which it ended, relative to `home`.
        snapshot: snapshot of the service's data folder.
    """

    home: Path
    folder: Path
    snapshot: Path


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def examples(text: str) -> list[Example]:
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def follow(commands: list[Example], folder: Path, url: str, **environ: str) -> Path:
    """Run commands in `folder` against the service at `url`; return the folder in which they end."""
    assert commands
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environ}
    checker = doctest.OutputChecker()
    for command, expected in commands:
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
            continue
        found = subprocess.run(
            ["bash", "-c", command.replace("localhost:8000", url.removeprefix("http://"))],
            cwd=folder,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert found.returncode == 0, (command, found.stderr)
        printed = found.stdout + "\n" * (found.stdout[-1:] not in ("", "\n"))
        assert checker.check_output(expected, printed, doctest.ELLIPSIS), f"{command}\nprinted {printed}"
    return folder


@pytest.fixture(scope="module")
def tour(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Tour:
    """The README's tour, run once; the pages that continue it start from copies of its outcome."""
    home = tmp_path_factory.mktemp("tour")
    data = tmp_path_factory.mktemp("data")
    snapshot = data.with_suffix(".tar")
    with as_process(data) as running:
        folder = follow(examples(text_of(TOUR)), home, running.url, OFFKEY_BUNDLE=str(bundle))
        offkey("snapshot", snapshot, "--data-dir", data)
    return Tour(home, folder.relative_to(home), snapshot)


def offkey(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "service.cli", *map(str, words)], check=True, capture_output=True, timeout=60)


def test_the_tour_is_short(tour: Tour) -> None:
    assert 5 <= len(examples(text_of(TOUR))) <= 10


@pytest.mark.parametrize("page", AFTER_THE_TOUR)
def test_pages_that_continue_the_tour(
    page: str, tour: Tour, serve: Callable[..., str], bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tour.home, tmp_path / "home")
    offkey("restore", tour.snapshot, "--data-dir", tmp_path / "data")
    url = serve(tmp_path / "data")
    follow(examples(text_of(page)), tmp_path / "home" / tour.folder, url, OFFKEY_BUNDLE=str(bundle))


@pytest.mark.parametrize("page", ALONE)
def test_pages_that_need_no_machine(page: str, serve: Callable[..., str], bundle: Path, tmp_path: Path) -> None:
    url = serve(tmp_path / "data")
    follow(examples(text_of(page)), tmp_path, url, OFFKEY_BUNDLE=str(bundle))


def test_getting_started(serve: Callable[..., str], bundle: Path, tmp_path: Path) -> None:
    """The page ends with the commands that make its files, so these run first."""
    steps, files = text_of(START).split("## Try it without recordings")
    url = serve(tmp_path / "data")
    follow(examples(files) + examples(steps), tmp_path, url, OFFKEY_BUNDLE=str(bundle), OFFKEY_URL=url)


def test_experiments(bundle: Path, tmp_path: Path) -> None:
    text = text_of(EXPERIMENTS)
    assert "196 synthetic clips" in text
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "offkey"
    command.write_text(FEW_CLIPS)
    command.chmod(0o755)
    path = f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    commands = examples(text.replace("196 synthetic clips", "56 synthetic clips"))
    follow(commands, tmp_path, "", OFFKEY_BUNDLE=str(bundle), PATH=path)


def test_every_page_with_examples_is_run() -> None:
    pages = [
        "README.md",
        "CONTRIBUTING.md",
        *(page.relative_to(REPOSITORY) for page in REPOSITORY.glob("docs/**/*.md")),
    ]
    shown = {str(page) for page in pages if examples(text_of(str(page)))}
    assert shown == {TOUR, START, EXPERIMENTS, *AFTER_THE_TOUR, *ALONE, *BY_TRAINING_TESTS}


def test_python_example(tour: Tour, serve: Callable[..., str], tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", text_of(TOUR), re.DOTALL)
    offkey("restore", tour.snapshot, "--data-dir", tmp_path / "data")
    url = serve(tmp_path / "data")
    assert "http://127.0.0.1:8000" in script
    found = subprocess.run(
        [sys.executable, "-c", script.replace("http://127.0.0.1:8000", url)],
        cwd=tour.home / tour.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    score, threshold, is_anomalous = found.stdout.split()
    assert float(score) > float(threshold)
    assert is_anomalous == "True"
