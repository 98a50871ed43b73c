"""Describe the measuring machine in every result, and write results."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from service.encoder.processor import cores, processor_name

RESULTS = Path(__file__).parent / "results"


def describe() -> dict[str, Any]:
    """Processor, cores and versions; nothing that names a host or a user."""
    packages = ("numpy", "hnswlib", "fastapi", "uvicorn", "offkey")
    return {
        "processor": processor_name(),
        "cores": cores(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def write(name: str, command: str, result: dict[str, Any]) -> Path:
    """Write `results/<name>.json` and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"command": command, "machine": describe(), **result}, indent=2) + "\n")
    return path


def result(name: str) -> dict[str, Any]:
    """What `write` wrote."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found
