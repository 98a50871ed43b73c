"""A typed client of the HTTP API: `Client("http://127.0.0.1:8000").score("fan-1", ["clip.wav"])`."""

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from offkey.errors import ErrorKind, OffkeyError
from offkey.keys import Token, check_key_id
from offkey.schemas import (
    AuditEntry,
    AuditList,
    Clip,
    ClipList,
    DriftReport,
    Enrollment,
    Feedback,
    Info,
    Job,
    JobEntry,
    JobEntryList,
    JobList,
    Key,
    KeyList,
    KeySettings,
    Machine,
    MachineList,
    MachineSettings,
    MachineSummary,
    Model,
    ModelList,
    NewKey,
    NoiseEnrollment,
    Problem,
    Scores,
    Threshold,
    ThresholdSettings,
)
from offkey.vocabulary import Domain, Scope, check_machine_id

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = 120.0  # seconds: a request may hold many minutes of audio
_LONGEST_RETRY_AFTER = 60  # seconds

Answer = TypeVar("Answer", bound=BaseModel)


class ProblemError(Exception):
    """The service refused the request; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        clip = (problem.model_extra or {}).get("clip")
        prefix = f"{clip}: " if clip is not None and str(clip) not in problem.detail else ""
        super().__init__(f"{prefix}{problem.detail} (request {problem.request_id})")
        self.problem = problem

    @property
    def kind(self) -> str:
        """The error kind, such as `empty-bank`."""
        return self.problem.type.rpartition(":")[2]


class UnreachableError(Exception):
    """There is no answer from the service, or not one that Offkey would give."""


class Client:
    """Talks to one service. Every method raises `ProblemError` or `UnreachableError` where it fails.

    A machine id that no machine can have is an `OffkeyError` before anything is sent: as a part of a path it could
    mean something else.
    """

    def __init__(
        self, url: str = DEFAULT_URL, *, key: str | None = None, timeout: float = DEFAULT_TIMEOUT, retries: int = 5
    ) -> None:
        """Connects on the first call.

        Args:
            url: of the service.
            key: that is sent; None: the one in OFFKEY_KEY, if there is one.
            timeout: of one attempt, seconds.
            retries: how often a request is sent again that is answered 503 or 429 and when to come again
                (`Retry-After`).
                Each wait is twice as long as the one before. No request of this API does harm when sent twice:
                a clip is known by its content.

        Raises:
            OffkeyError: the key is not of the form that keys have.
        """
        self.url = url.rstrip("/")
        self._retries = retries
        self._http = httpx2.Client(base_url=self.url, timeout=timeout, headers=_authorization(key))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def info(self) -> Info:
        """What the service runs, and its limits."""
        return self._call(Info, "GET", "/info")

    def ready(self) -> bool:
        """Whether the service can serve. Never raises."""
        try:
            return self._http.get("/readyz", timeout=5.0).is_success
        except httpx2.HTTPError:
            return False

    def machines(self) -> Iterator[MachineSummary]:
        """Every machine, by id."""
        for page in self._pages(MachineList, "/machines"):
            yield from page.machines

    def machine(self, machine_id: str) -> Machine:
        """One machine."""
        return self._call(Machine, "GET", _path(machine_id))

    def put_machine(self, machine_id: str, *, description: str = "") -> Machine:
        """Create a machine or describe it anew."""
        settings = MachineSettings(description=description)
        return self._call(Machine, "PUT", _path(machine_id), json=settings.model_dump())

    def threshold(self, machine_id: str) -> Threshold:
        """A machine's decision threshold and what it promises."""
        return self._call(Threshold, "GET", f"{_path(machine_id)}/threshold")

    def put_threshold(self, machine_id: str, settings: ThresholdSettings) -> Machine:
        """Choose how a machine's decision threshold comes about; `ThresholdSettings()` is the default."""
        body = settings.model_dump(mode="json")
        return self._call(Machine, "PUT", f"{_path(machine_id)}/threshold", json=body)

    def delete_machine(self, machine_id: str) -> None:
        """Delete a machine and its bank."""
        self._send("DELETE", _path(machine_id))

    def clips(self, machine_id: str) -> Iterator[Clip]:
        """Every enrolled clip of a machine, by id."""
        for page in self._pages(ClipList, f"{_path(machine_id)}/clips"):
            yield from page.clips

    def delete_clip(self, machine_id: str, clip_id: int) -> Machine:
        """Take a clip out of a machine's bank."""
        return self._call(Machine, "DELETE", f"{_path(machine_id)}/clips/{clip_id:d}")

    def enroll(
        self,
        machine_id: str,
        clips: Sequence[Path | str],
        *,
        domain: Domain = Domain.SOURCE,
        recording: str | None = None,
        force: bool = False,
    ) -> Enrollment:
        """Enroll audio files as normal clips.

        Args:
            machine_id: whose bank.
            clips: the files.
            domain: they were recorded under.
            recording: the one that all of them were cut from; without it each is one of its own.
            force: enroll also what sounds anomalous.
        """
        params = _condition(machine_id, domain, recording)
        if force:
            params["force"] = "true"
        return self._call(Enrollment, "POST", "/enroll", params=params, files=_files(clips))

    def feedback(
        self,
        machine_id: str,
        clips: Sequence[Path | str],
        *,
        domain: Domain = Domain.SOURCE,
        recording: str | None = None,
    ) -> Feedback:
        """Say that the alarms of these files were false: they are enrolled."""
        params = _condition(machine_id, domain, recording)
        return self._call(Feedback, "POST", "/feedback", params=params, files=_files(clips))

    def enroll_archive(
        self,
        machine_id: str,
        archive: Path | str,
        *,
        domain: Domain = Domain.SOURCE,
        recording: str | None = None,
        force: bool = False,
    ) -> Job:
        """Hand over a zip archive of normal clips; the job that is returned enrolls them. Arguments as of `enroll`."""
        params = _condition(machine_id, domain, recording)
        if force:
            params["force"] = "true"
        # Sent again because no answer came, it is the same job.
        headers = {"Content-Type": "application/zip", "Idempotency-Key": uuid.uuid4().hex}
        return self._call(Job, "POST", "/enroll", params=params, headers=headers, content=Path(archive).read_bytes())

    def jobs(self) -> Iterator[Job]:
        """Every job that is remembered and that the key may see, the newest first."""
        for page in self._pages(JobList, "/jobs", cursor="before"):
            yield from page.jobs

    def job(self, job_id: int) -> Job:
        """How far a job is."""
        return self._call(Job, "GET", f"/jobs/{job_id:d}")

    def job_entries(self, job_id: int) -> Iterator[JobEntry]:
        """What became of each entry of a job that is done."""
        for page in self._pages(JobEntryList, f"/jobs/{job_id:d}/entries"):
            yield from page.entries

    def cancel_job(self, job_id: int) -> Job:
        """End a job; what it did already stays."""
        return self._call(Job, "DELETE", f"/jobs/{job_id:d}")

    def reembed(self, machine_id: str | None = None) -> Job:
        """Have one machine, or all that need it, moved to the bundle that serves."""
        params = {} if machine_id is None else {"machine_id": check_machine_id(machine_id)}
        return self._call(Job, "POST", "/reembed", params=params)

    def models(self) -> list[Model]:
        """Which bundles serve, and how many banks are of which."""
        return self._call(ModelList, "GET", "/models").models

    def score(
        self, machine_id: str, clips: Sequence[Path | str], *, neighbors: int = 1, localize: bool | None = None
    ) -> Scores:
        """Score audio files.

        Args:
            machine_id: whose bank to compare with.
            clips: the files.
            neighbors: how many enrolled windows to name for each scored one.
            localize: tell what stands out in each window; None: where there is a single clip.
        """
        params: dict[str, str | int] = {"machine_id": machine_id, "neighbors": neighbors}
        if localize is not None:
            params["localize"] = str(localize).lower()
        return self._call(Scores, "POST", "/score", params=params, files=_files(clips))

    def api_keys(self) -> Iterator[Key]:
        """Every key, revoked ones too."""
        for page in self._pages(KeyList, "/keys"):
            yield from page.keys

    def create_key(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        machine_prefix: str | None = None,
        rate_per_minute: int | None = None,
    ) -> NewKey:
        """Make a key. What it returns is the only place where its secret is.

        Args:
            name: by which the audit log names it.
            scopes: what it is good for.
            machine_prefix: with which the ids of its machines begin; None: it is for all machines.
            rate_per_minute: most requests; None: as many as come.
        """
        settings = KeySettings(
            name=name, scopes=list(scopes), machine_prefix=machine_prefix, rate_per_minute=rate_per_minute
        )
        return self._call(NewKey, "POST", "/keys", json=settings.model_dump(mode="json"))

    def revoke_key(self, key_id: str) -> None:
        """Let a key open nothing from now on."""
        self._send("DELETE", f"/keys/{check_key_id(key_id)}")

    def audit(self) -> Iterator[AuditEntry]:
        """Every change that is remembered, the newest first."""
        for page in self._pages(AuditList, "/audit", cursor="before"):
            yield from page.entries

    def add_noise(self, machine_id: str, clips: Sequence[Path | str]) -> NoiseEnrollment:
        """Post audio files of the background while the machine stands still."""
        return self._call(NoiseEnrollment, "POST", "/noise", params={"machine_id": machine_id}, files=_files(clips))

    def drift(self, machine_id: str) -> DriftReport:
        """Whether what was scored lately still scores as the enrolled clips do."""
        return self._call(DriftReport, "GET", f"{_path(machine_id)}/drift")

    def _pages(self, answer: type[Answer], path: str, *, cursor: str = "after") -> Iterator[Answer]:
        """Every page of a list. `cursor` is the parameter that asks for the next one, which `next_<cursor>` names."""
        params: dict[str, str | int] = {}
        while True:
            page = self._call(answer, "GET", path, params=params)
            yield page
            following = getattr(page, f"next_{cursor}")
            if following is None:
                return
            params = {cursor: following}

    def _call(self, answer: type[Answer], method: str, path: str, **request: Any) -> Answer:
        response = self._send(method, path, **request)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise UnreachableError(f"{self.url} answers, but not as Offkey does: {error}") from error

    def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        for attempt in range(self._retries + 1):
            try:
                response = self._http.request(method, path, **request)
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise UnreachableError(
                    f"No answer from {self.url} ({error or type(error).__name__}). Is the service up? "
                    "`offkey serve` starts it."
                ) from error
            wait = _retry_after(response)
            if wait is None or attempt == self._retries:
                break
            time.sleep(wait * 2**attempt)
        if response.is_success:
            return response
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError as error:
            raise UnreachableError(
                f"{self.url}{path} answered {response.status_code}, but not as Offkey does."
            ) from error
        raise ProblemError(problem)


def _authorization(key: str | None) -> dict[str, str]:
    sent = (os.environ.get("OFFKEY_KEY", "") if key is None else key).strip()
    if not sent:
        return {}
    if Token.parse(sent) is None:  # it is not shown: it may be a secret all the same
        raise OffkeyError(
            ErrorKind.UNAUTHENTICATED,
            "The key (OFFKEY_KEY) is not of the form offkey_<key id>_<secret>. Copy it whole, as `offkey keys create` "
            "printed it.",
        )
    return {"Authorization": f"Bearer {sent}"}


def _condition(machine_id: str, domain: Domain, recording: str | None) -> dict[str, str]:
    named = {} if recording is None else {"recording": recording}
    return {"machine_id": machine_id, "domain": domain.value, **named}


def _path(machine_id: str) -> str:
    # Quoting would not do: servers undo it before they look for the route.
    return f"/machines/{check_machine_id(machine_id)}"


def _retry_after(response: httpx2.Response) -> int | None:
    """Seconds that a 503 or 429 asks to wait; None if it does not ask, or asks for too many."""
    seconds = response.headers.get("Retry-After", "")
    if response.status_code not in (429, 503) or not (seconds.isascii() and seconds.isdigit()):
        return None
    return int(seconds) if int(seconds) <= _LONGEST_RETRY_AFTER else None


def _files(clips: Sequence[Path | str]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("clips", (Path(clip).name, Path(clip).read_bytes())) for clip in clips]
