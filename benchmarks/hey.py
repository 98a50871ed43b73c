"""The load generator `hey`: a compiled one, so that it takes little of the cores that it shares with a server."""

import csv
import io
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class Answer(NamedTuple):
    """One answer that came back."""

    status: int
    sent: float  # seconds after the first request was begun
    seconds: float  # until it was here


def require() -> None:
    """End with a message if it is not installed."""
    if shutil.which("hey") is None:
        raise SystemExit("The load generator `hey` is not here: apt install hey, or see https://github.com/rakyll/hey.")


def post(url: str, body: Path, kind: str, arguments: list[str]) -> list[Answer]:
    """Send a body of a content type again and again; `arguments` say how often and how many at once."""
    command = ["hey", "-m", "POST", "-T", kind, "-D", str(body), "-o", "csv", *arguments, url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [
        Answer(int(row["status-code"]), float(row["offset"]), float(row["response-time"]))
        for row in csv.DictReader(io.StringIO(printed))
    ]


def percentile(seconds: list[float], share: int) -> float:
    """The time that `share` percent of answers took at most."""
    return sorted(seconds)[int(share / 100 * (len(seconds) - 1))]
