"""Writes figures: Markdown tables, and JSON with one row of a list per line."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from offkey import atomic
from training.evaluation.bootstrap import Interval, recordings_of
from training.evaluation.tree import JudgedMachine


def write_json(path: Path, sections: Mapping[str, Any]) -> None:
    """Write JSON with one row of a list per line, so that files can be compared line by line."""
    parts = []
    for name, value in sections.items():
        rows = isinstance(value, list) and value and isinstance(value[0], dict)
        lines = ",\n  ".join(json.dumps(row) for row in value) if rows else ""
        parts.append(f" {json.dumps(name)}: " + (f"[\n  {lines}\n ]" if rows else json.dumps(value)))
    write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically; create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, text)


def describe(machine: JudgedMachine) -> dict[str, Any]:
    """Count the clips and recordings of a machine."""
    return {
        "name": machine.name,
        "train": {str(d): sum(clip.domain == d for clip in machine.train) for d in ("source", "target")},
        "test": {"normal": int((~machine.anomalous).sum()), "anomaly": int(machine.anomalous.sum())},
        "test_recordings": recordings_of(machine),
    }


def ends(interval: Interval | None) -> dict[str, float | None]:
    """Return a figure and its interval with all digits; undefined ones are None."""
    if interval is None:
        return {"value": None, "low": None, "high": None}
    return {name: None if math.isnan(value) else value for name, value in asdict(interval).items()}


def with_ends(interval: Interval | None, sign: str = "") -> str:
    """Format a figure with its interval in brackets."""
    if interval is None:
        return ""
    return f"{interval.value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with a column of text and columns of figures."""
    lines = [heads, ["---", *(["---:"] * (len(heads) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
