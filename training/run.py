"""A run folder: config, provenance, log and checkpoints."""

import csv
import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from offkey import atomic
from training.config import Config, from_table, to_table

_PACKAGES = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime", "soundfile", "soxr")


RUN_FILE = "run.json"


class RunError(Exception):
    """A run folder is incomplete, or a checkpoint is damaged."""


@dataclass(frozen=True)
class Run:
    """A folder `runs/<name>`."""

    folder: Path

    @classmethod
    def create(cls, parent: Path, name: str, config: Config, provenance: Mapping[str, Any]) -> "Run":
        """Create a run folder with the config, `provenance` (data and classes), git revision and environment."""
        run = cls(_new_folder(parent, f"{name}-{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}"))
        about = {"config": to_table(config), **provenance, "git_revision": git_revision(), "environment": environment()}
        (run.folder / RUN_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        return run

    @property
    def about(self) -> dict[str, Any]:
        """Content of `run.json`. Raises `RunError` if there is no such file."""
        path = self.folder / RUN_FILE
        if not path.is_file():
            raise RunError(f"{self.folder} is not a run folder: it has no {RUN_FILE}.")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    @property
    def config(self) -> Config:
        """Config of the run."""
        return from_table(self.about["config"])

    @property
    def losses(self) -> "StepLog":
        """Losses by step."""
        return StepLog(self.folder / "log.csv")

    @property
    def retention(self) -> "StepLog":
        """Held-out figures by step and ratio, in the rows of `training.retention.as_rows`."""
        return StepLog(self.folder / "retention.csv")

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, keep: int) -> Path:
        """Write `checkpoints/<step>` atomically, then remove all but the newest `keep` checkpoints.

        Raises:
            RunError: the checkpoint could not be written. Earlier ones are unchanged.
        """
        parent = self.folder / "checkpoints"
        parent.mkdir(exist_ok=True)
        final = parent / f"{step:08d}"
        for left in parent.glob(".*"):  # of a killed process
            shutil.rmtree(left, ignore_errors=True)
        try:
            with atomic.replacing(final) as temporary:
                temporary.mkdir()
                stored = {name: value.contiguous() for name, value in tensors.items()}
                save_file(stored, temporary / "model.safetensors")
                (temporary / "state.json").write_text(json.dumps({"step": step, **state}), encoding="utf-8")
        except (OSError, SafetensorError) as error:
            raise RunError(self._not_written(step, error)) from error
        for old in self.checkpoints[:-keep]:
            shutil.rmtree(old)
        return final

    def _not_written(self, step: int, error: Exception) -> str:
        before = self.checkpoints
        kept = f"{before[-1]} is intact: free disk space, then offkey train --resume {self.folder}" if before else ""
        return f"The checkpoint of step {step} could not be written: {error}. {kept or 'There is no earlier one'}."

    @property
    def checkpoints(self) -> list[Path]:
        """Folders of complete checkpoints, oldest first."""
        return sorted((self.folder / "checkpoints").glob("[0-9]*"))

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Load the tensors and the state of the newest checkpoint.

        Raises:
            RunError: there is no checkpoint, or it is damaged.
        """
        found = self.checkpoints
        if not found:
            raise RunError(f"{self.folder} has no checkpoint yet. Train it first.")
        try:
            tensors = load_file(found[-1] / "model.safetensors")
            state: dict[str, Any] = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise RunError(
                f"The checkpoint {found[-1]} is damaged: {error}. Remove it to use the previous one."
            ) from error
        return tensors, state


@dataclass(frozen=True)
class StepLog:
    """A CSV file with rows in the order of its column `step`."""

    path: Path

    def append(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Append rows; the first row of the file defines the columns."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            for row in rows:
                writer = csv.DictWriter(file, fieldnames=list(row))
                if not file.tell():
                    writer.writeheader()
                writer.writerow(row)

    def rows(self) -> list[dict[str, float]]:
        """Read all rows; return an empty list if there is no file."""
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def rewind(self, step: int) -> None:
        """Remove the rows after `step`, because a run that resumes there writes them again."""
        if not self.path.exists():
            return
        head, *rows = self.path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        # A killed process may have left an incomplete row.
        kept = [row for row in rows if row.endswith("\n") and int(row.partition(",")[0]) <= step]
        text = "".join([head, *kept]) if kept else ""
        if not text:
            self.path.unlink()
            return
        atomic.write_text(self.path, text)


def _new_folder(parent: Path, name: str) -> Path:
    """Create a folder; append a number to its name if another run has the name."""
    number, folder = 1, parent / name
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            folder = parent / f"{name}-{number}"
        else:
            return folder


def git_revision() -> str:
    """Return the git revision, with `-dirty` if the packages differ from it; `unversioned` outside of git."""
    root = Path(__file__).parents[1]

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    revision = git("rev-parse", "HEAD")
    if revision is None or git("rev-parse", "--show-toplevel") != str(root):  # installed inside another repository
        return "unversioned"
    return revision + ("-dirty" if git("status", "--porcelain", "--", "training", "service") else "")


def environment() -> dict[str, str]:
    """Return versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
