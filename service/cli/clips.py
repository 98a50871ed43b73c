"""`offkey enroll`, `offkey feedback` and `offkey score`."""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from offkey import Client, ClipScore, Domain, EnrolledClip, Enrollment, Judgment, ProblemError, Scores, Threshold
from service.cli.common import URL, MachineId, Url, plain, progress
from service.cli.jobs import followed

app = typer.Typer()

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".caf"})
_CLIPS_PER_REQUEST = 8
_REQUESTS_AT_ONCE = 4

T = TypeVar("T")

Files = Annotated[list[Path], typer.Argument(help="Audio files, or folders with audio files.")]

DomainOption = Annotated[Domain, typer.Option(help="Operating condition during the recording.")]
RecordingOption = Annotated[
    str | None, typer.Option(help="Recording that all the clips are cut from; otherwise each clip is a recording.")
]


@app.command()
def enroll(
    files: Files,
    machine: MachineId,
    domain: DomainOption = Domain.SOURCE,
    recording: RecordingOption = None,
    force: Annotated[bool, typer.Option("--force", help="Enroll clips that score as anomalous too.")] = False,
    url: Url = URL,
) -> None:
    """Add normal clips to a machine's memory bank. The machine is created if it does not exist.

    A zip archive is sent as a whole. The service enrolls it in a job while this command shows the progress.
    """
    if any(path.suffix.lower() == ".zip" for path in files):
        if len(files) > 1:
            raise typer.BadParameter("a zip archive is enrolled by itself: name it alone")
        with Client(url) as client:
            _create_if_absent(client, machine)
            job = client.enroll_archive(machine, files[0], domain=domain, recording=recording, force=force)
            followed(client, job, f"enrolling into {machine}")
        return
    paths = audio_files(files)
    counts: Counter[str] = Counter()
    notes: list[str] = []
    newest: Enrollment | None = None
    try:
        with Client(url) as client, progress() as bar:
            _create_if_absent(client, machine)
            task = bar.add_task(f"enrolling into {machine}", total=len(paths))
            send = partial(client.enroll, machine, domain=domain, recording=recording, force=force)
            for batch, answer in send_all(send, batches(client, paths)):
                newest = answer if newest is None or answer.generation > newest.generation else newest
                counts.update(clip.status for clip in answer.clips)
                notes += [str(plain(f"{clip.name}: {clip.status}. {clip.note}")) for clip in answer.clips if clip.note]
                notes += warning_lines(answer.clips)
                bar.advance(task, len(batch))
    finally:  # if a later request fails, the earlier ones are done
        if newest is not None:
            held_back = counts["held-back"]
            for line in notes:
                typer.echo(line)
            typer.echo(
                f"{machine}: {counts['enrolled']} clips enrolled, {counts['duplicate']} were there already"
                f"{f', {held_back} HELD BACK (--force enrolls them)' if held_back else ''}; the bank has "
                f"{newest.bank.source} source and {newest.bank.target} target clips (generation {newest.generation})."
            )


@app.command()
def feedback(
    files: Files,
    machine: MachineId,
    domain: DomainOption = Domain.SOURCE,
    recording: RecordingOption = None,
    url: Url = URL,
) -> None:
    """Report that the alarms for these clips were false. The clips are enrolled as normal."""
    paths = audio_files(files)
    table = Table("clip", "clip id")
    for column in ("score before", "threshold before", "score of such a clip now", "threshold now"):
        table.add_column(column, justify="right")
    try:
        with Client(url) as client, progress() as bar:
            task = bar.add_task(f"enrolling false alarms of {machine}", total=len(paths))
            for batch in batches(client, paths):
                for clip in client.feedback(machine, batch, domain=domain, recording=recording).clips:
                    row = (f"{value:.2f}" for judged in (clip.before, clip.after) for value in _numbers(judged))
                    table.add_row(plain(clip.name), str(clip.clip_id), *row)
                bar.advance(task, len(batch))
    finally:  # if a later request fails, the earlier ones are done
        if table.row_count:
            Console().print(table)


@app.command()
def score(
    files: Files,
    machine: MachineId,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per clip instead of the table.")] = False,
    url: Url = URL,
) -> None:
    """Score clips. The exit status is 0 whether or not a clip is anomalous."""
    paths = audio_files(files)
    answers: list[Scores] = []
    try:
        with Client(url) as client, progress() as bar:
            task = bar.add_task(f"scoring for {machine}", total=len(paths))
            for batch, answer in send_all(partial(client.score, machine), batches(client, paths)):
                answers.append(answer)
                bar.advance(task, len(batch))
    finally:  # if a later request fails, the scores of the earlier ones are shown
        if as_json:
            _print_json(answers)
        elif answers:
            Console().print(score_table(answers))
            for line in places(answers[0].clips[0]) if len(paths) == 1 else ():
                typer.echo(line)
            for line in warning_lines(clip for answer in answers for clip in answer.clips):
                typer.echo(line)
            for line in promise(answers[-1].threshold):
                typer.echo(line)


def audio_files(files: Iterable[Path]) -> list[Path]:
    """Return files as given, and the audio files in folders in order of name.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no audio file.
    """
    found: list[Path] = []
    for path in files:
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            if not below:
                raise FileNotFoundError(f"{path} holds no audio file ({', '.join(sorted(SUFFIXES))}).")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"There is no file or folder {path}.")
    return found


def batches(client: Client, paths: Sequence[Path]) -> Iterable[list[Path]]:
    """Cut a list of clips into requests that the service's limits allow."""
    limits = client.info().limits
    most = min(_CLIPS_PER_REQUEST, int(limits["max_clips_per_request"]))
    room = limits["max_body_bytes"] * 0.95  # the rest is for the form around the clips
    batch: list[Path] = []
    size = 0
    for path in paths:
        length = path.stat().st_size
        if batch and (len(batch) == most or size + length > room):
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += length
    if batch:
        yield batch


def send_all(send: Callable[[list[Path]], T], batches: Iterable[list[Path]]) -> Iterator[tuple[list[Path], T]]:
    """Send batches, a few at a time so that every core has one, and yield each with its answer, in order.

    After an error no more are sent. The answers to those under way are yielded before it is raised.
    """
    under_way: deque[tuple[list[Path], Future[T]]] = deque()

    def first() -> tuple[list[Path], T]:
        batch, answer = under_way.popleft()
        return batch, answer.result()

    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        try:
            for batch in batches:
                under_way.append((batch, pool.submit(send, batch)))
                if len(under_way) == _REQUESTS_AT_ONCE:
                    yield first()
            while under_way:
                yield first()
        except Exception:
            while under_way:
                batch, answer = under_way.popleft()
                if answer.exception() is None:
                    yield batch, answer.result()
            raise


def score_table(answers: Iterable[Scores]) -> Table:
    """Return a table of clips with score, threshold and decision."""
    table = Table("clip", "machine")
    table.add_column("anomaly score", justify="right")
    table.add_column("threshold", justify="right")
    table.add_column("decision")
    for answer in answers:
        for clip in answer.clips:
            table.add_row(
                plain(clip.name),
                plain(answer.machine_id),
                f"{clip.anomaly_score:.2f}",
                f"{clip.decision_threshold:.2f}",
                "[red]ANOMALOUS[/]" if clip.is_anomalous else "[green]normal[/]",
            )
    return table


def warning_lines(clips: Iterable[EnrolledClip | ClipScore]) -> list[str]:
    """Return a line for each warning about a clip."""
    return [str(plain(f"{clip.name}: {warning.detail}")) for clip in clips for warning in clip.warnings]


def _numbers(judged: Judgment) -> tuple[float, float]:
    return judged.anomaly_score, judged.decision_threshold


def promise(threshold: Threshold) -> Iterator[str]:
    """Yield the promised false-alarm rates, and what to enroll if they are not the requested one."""
    rates = ", ".join(
        f"{own.domain} {'none' if (rate := own.promised_false_alarm_rate) is None else f'{rate:.1%}'}"
        for own in threshold.domains
    )
    yield f"Promised false-alarm rate: {rates}."
    yield from threshold.warnings


def places(clip: ClipScore) -> Iterator[str]:
    """Yield the regions that differ most in an anomalous clip, window by window."""
    for window in clip.windows if clip.is_anomalous else ():
        for region in window.localization.regions if window.localization else ():
            yield (
                f"Stands out: {region.start_s:g} to {region.end_s:g} s, {region.low_hz:.0f} to {region.high_hz:.0f} Hz"
                f", {region.change} by {region.deviation:.1f} deviations (p = {region.p_value:.2g})."
            )


def _print_json(answers: Iterable[Scores]) -> None:
    for answer in answers:
        common = answer.model_dump(mode="json", exclude={"clips"})
        for clip in answer.clips:
            typer.echo(json.dumps({**common, **clip.model_dump(mode="json")}))


def _create_if_absent(client: Client, machine: str) -> None:
    try:
        client.machine(machine)
    except ProblemError as error:
        if error.kind != "unknown-machine":
            raise
        client.put_machine(machine)
        typer.echo(f"{machine}: created.")
