"""`offkey demo`: the main job, end to end, on synthetic machines."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from offkey import Client, ClipScore, Domain, Scores
from service.cli.clips import score_table
from service.cli.common import progress

if TYPE_CHECKING:
    from service.synthetic import PlannedClip

app = typer.Typer()

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_BATCH = 5
_SEVERITIES = (30, 60, 100)  # percent
_PLAIN_FAULT = 60  # percent


class DemoError(Exception):
    """The demo cannot run."""


@dataclass(frozen=True)
class Verdict:
    """Scores of a machine's test clips, by severity of the fault in percent; 0 is healthy."""

    machine_id: str
    clips: Mapping[int, list[ClipScore]]

    def alarms(self, severity: int) -> str:
        """Count the clips of a severity that were called anomalous, as `3 of 4`."""
        clips = self.clips[severity]
        return f"{sum(clip.is_anomalous for clip in clips)} of {len(clips)}"

    @property
    def separated(self) -> bool:
        """Whether each clip with a plain fault scores above all healthy ones."""
        plain = [clip for severity, clips in self.clips.items() if severity >= _PLAIN_FAULT for clip in clips]
        return min(clip.anomaly_score for clip in plain) > max(clip.anomaly_score for clip in self.clips[0])


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End by itself instead of leaving the service up.")] = False,
    port: Annotated[int, typer.Option(help="TCP port of the service; 0 takes a free one.")] = 8000,
) -> None:
    """Start the service, enroll and score synthetic machines over HTTP, and leave it up until Ctrl-C.

    The exit status is 1 if, for any machine, a clip with a plain fault (severity 60 % or more) does not score
    above all healthy ones. Subtle faults (30 %) are scored and shown, but not counted: some are hard to detect.
    """
    from service.synthetic import plan_tree  # here: needs `offkey[service]`

    clips = plan_tree(severities=_SEVERITIES)
    console = Console()
    _end_on_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="offkey-demo-") as folder:
            root = Path(folder)
            with _service(root / "data", _usable_port(port)) as url:
                verdicts = _run(url, root / "clips", clips, console)
                console.print(_verdict_table(verdicts))
                if not once:
                    console.print(f"The service is up at {url} (pages: {url}/docs). Ctrl-C ends it.")
                    _wait_for_interrupt()
    except DemoError as error:
        raise SystemExit(f"offkey: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(0 if all(verdict.separated for verdict in verdicts) else 1)


def _run(url: str, root: Path, clips: "list[PlannedClip]", console: Console) -> list[Verdict]:
    from service.synthetic import MACHINES, write_tree

    verdicts: list[Verdict] = []
    answers: list[Scores] = []
    with Client(url) as client, progress() as bar:
        task = bar.add_task("synthesizing machines", total=len(clips))
        write_tree(root, clips, on_written=lambda _: bar.advance(task))
        for machine_id, machine in MACHINES.items():
            own = [clip for clip in clips if clip.machine_id == machine_id]
            client.put_machine(machine_id, description=machine.title)
            _enroll(client, bar, root, [clip for clip in own if clip.split == "train"])
            scored = _score(client, bar, root, [clip for clip in own if clip.split == "test"])
            answers += scored
            verdicts.append(_verdict(machine_id, scored))
    console.print(score_table(answers))
    return verdicts


def _enroll(client: Client, bar: Progress, root: Path, clips: "list[PlannedClip]") -> None:
    task = bar.add_task(f"enrolling {clips[0].machine_id}", total=len(clips))
    for domain in Domain:
        paths = [root / clip.path for clip in clips if clip.domain == domain.value]
        for batch in _batched(paths):
            client.enroll(clips[0].machine_id, batch, domain=domain)
            bar.advance(task, len(batch))


def _score(client: Client, bar: Progress, root: Path, clips: "list[PlannedClip]") -> list[Scores]:
    task = bar.add_task(f"scoring {clips[0].machine_id}", total=len(clips))
    answers = []
    for batch in _batched([root / clip.path for clip in clips]):
        answers.append(client.score(clips[0].machine_id, batch))
        bar.advance(task, len(batch))
    return answers


def _batched(paths: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(paths), _BATCH):
        yield paths[start : start + _BATCH]


def _verdict(machine_id: str, answers: list[Scores]) -> Verdict:
    clips: dict[int, list[ClipScore]] = {severity: [] for severity in (0, *_SEVERITIES)}
    for answer in answers:
        for clip in answer.clips:
            # The severity in the name is the truth. The service does not read it.
            clips[int(clip.name.removesuffix(".wav").rpartition("_severity_")[2])].append(clip)
    return Verdict(machine_id, clips)


def _verdict_table(verdicts: list[Verdict]) -> Table:
    table = Table("synthetic machine", title="Clips called anomalous, by severity of the fault")
    table.add_column("healthy", justify="right")
    for severity in _SEVERITIES:
        table.add_column(f"{severity} %", justify="right")
    table.add_column(f"all from {_PLAIN_FAULT} % up score above healthy")
    for verdict in verdicts:
        table.add_row(
            verdict.machine_id,
            *(verdict.alarms(severity) for severity in (0, *_SEVERITIES)),
            "[green]yes[/]" if verdict.separated else "[red]no[/]",
        )
    return table


@contextmanager
def _service(data_dir: Path, port: int) -> Iterator[str]:
    """Run `offkey serve` in a process of its own; yield its address once it is ready."""
    data_dir.mkdir(parents=True)
    log = data_dir / "service.log"
    environ = {**os.environ, "OFFKEY_HOST": "127.0.0.1", "OFFKEY_PORT": str(port), "OFFKEY_DATA_DIR": str(data_dir)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve"], env=environ, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with Client(url) as client:
            deadline = time.monotonic() + _START_SECONDS
            while not client.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise DemoError(f"the service did not start. Its log:\n{log.read_text(errors='replace')}")
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _usable_port(port: int) -> int:
    """Return the port itself, or a free one if another program has it."""
    for candidate in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError(f"neither port {port} nor any other can be bound on 127.0.0.1.")


def _end_on_signals() -> None:
    """End the demo in order at SIGINT and SIGTERM, so that no service and no folder is left.

    SIGINT is set too: a shell ignores it for a command in the background.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def _wait_for_interrupt() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
