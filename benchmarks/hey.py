"""The load generator `hey`: a compiled one, so that it takes little of the cores that it shares with a server."""

import csv
import io
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class Answer(NamedTuple):
    """One answer of the server."""

    status: int
    sent: float  # start of the request, seconds after the first one
    seconds: float  # time until the answer, seconds


def require() -> None:
    """Exit with a message if `hey` is not installed."""
    if shutil.which("hey") is None:
        raise SystemExit("The load generator `hey` is not here: apt install hey, or see https://github.com/rakyll/hey.")


def post(url: str, body: Path, kind: str, arguments: list[str]) -> list[Answer]:
    """Send a body repeatedly. `arguments` of `hey` set the number of requests and the concurrency."""
    command = ["hey", "-m", "POST", "-T", kind, "-D", str(body), "-o", "csv", *arguments, url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [
        Answer(int(row["status-code"]), float(row["offset"]), float(row["response-time"]))
        for row in csv.DictReader(io.StringIO(printed))
    ]


def percentile(seconds: list[float], share: int) -> float:
    """The time that `share` percent of answers took at most."""
    return sorted(seconds)[int(share / 100 * (len(seconds) - 1))]
