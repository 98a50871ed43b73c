"""Describe the calls that send clips: score, enroll, feedback and noise."""

import uuid

from offkey.archive_file import ArchiveFile, ArchiveSource
from offkey.clip_files import ClipSources, read_clips
from offkey.requests.request import Request
from offkey.schemas import Enrollment, Feedback, Job, NoiseEnrollment, Scores
from offkey.vocabulary import Domain, check_machine_id


def score(machine_id: str, clips: ClipSources, *, neighbors: int = 1, localize: bool | None = None) -> Request[Scores]:
    """Score clips against the bank of a machine.

    Args:
        machine_id: machine to compare with.
        clips: one clip or many. A clip is a path, bytes, an open binary file, or a pair (name, bytes).
        neighbors: number of enrolled windows to name for each scored window.
        localize: whether to find the seconds and bands that differ in each window; None for a single clip only.
    """
    params: dict[str, str | int] = {"machine_id": check_machine_id(machine_id), "neighbors": neighbors}
    if localize is not None:
        params["localize"] = _text(localize)
    return Request("POST", "/score", Scores.model_validate_json, params=params, clips=read_clips(clips))


def enroll(
    machine_id: str,
    clips: ClipSources,
    *,
    domain: Domain = Domain.SOURCE,
    recording: str | None = None,
    force: bool = False,
    idempotency_key: str | None = None,
) -> Request[Enrollment]:
    """Add normal clips to the bank of a machine.

    Args:
        machine_id: machine to enroll into.
        clips: one clip or many. A clip is a path, bytes, an open binary file, or a pair (name, bytes).
        domain: operating condition during the recording.
        recording: name of the recording that all the clips are cut from; None if each clip is a recording.
        force: whether to enroll clips that score as anomalous too.
        idempotency_key: name of this request. The service carries it out once in 24 hours, however often it is sent;
            None for a random one.
    """
    return Request(
        "POST",
        "/enroll",
        Enrollment.model_validate_json,
        params=_options(machine_id, domain, recording, force),
        clips=read_clips(clips),
        headers=_idempotent(idempotency_key),
    )


def enroll_archive(
    machine_id: str,
    archive: ArchiveSource,
    *,
    domain: Domain = Domain.SOURCE,
    recording: str | None = None,
    force: bool = False,
    idempotency_key: str | None = None,
) -> Request[Job]:
    """Send a zip archive of normal clips, and return the job that enrolls them. `wait` waits for it.

    Args:
        machine_id: machine to enroll into.
        archive: path, bytes or open binary file. It is sent in blocks, never read as a whole.
        domain: operating condition during the recording.
        recording: name of the recording that all the clips are cut from; None if each clip is a recording.
        force: whether to enroll clips that score as anomalous too.
        idempotency_key: name of this request. The service carries it out once in 24 hours, however often it is sent;
            None for a random one.
    """
    return Request(
        "POST",
        "/enroll",
        Job.model_validate_json,
        params=_options(machine_id, domain, recording, force),
        archive=ArchiveFile(archive),
        headers={"Content-Type": "application/zip", **_idempotent(idempotency_key)},
    )


def feedback(
    machine_id: str, clips: ClipSources, *, domain: Domain = Domain.SOURCE, recording: str | None = None
) -> Request[Feedback]:
    """Report that the alarms for these clips were false. The clips are enrolled as normal.

    Args:
        machine_id: machine that raised the alarms.
        clips: one clip or many. A clip is a path, bytes, an open binary file, or a pair (name, bytes).
        domain: operating condition during the recording.
        recording: name of the recording that all the clips are cut from; None if each clip is a recording.
    """
    return Request(
        "POST",
        "/feedback",
        Feedback.model_validate_json,
        params=_options(machine_id, domain, recording, force=False),
        clips=read_clips(clips),
        is_idempotent=False,  # the second answer would compare with a bank that has the clips
    )


def add_noise(machine_id: str, clips: ClipSources) -> Request[NoiseEnrollment]:
    """Add clips of the background without the machine. Scored clips that resemble them get a warning.

    Args:
        machine_id: machine near the microphone.
        clips: one clip or many. A clip is a path, bytes, an open binary file, or a pair (name, bytes).
    """
    return Request(
        "POST",
        "/noise",
        NoiseEnrollment.model_validate_json,
        params={"machine_id": check_machine_id(machine_id)},
        clips=read_clips(clips),
        is_idempotent=False,  # the second answer would count the clips as present before
    )


def _options(machine_id: str, domain: Domain, recording: str | None, force: bool) -> dict[str, str]:
    options = {"machine_id": check_machine_id(machine_id), "domain": Domain(domain).value}
    if recording is not None:
        options["recording"] = recording
    if force:
        options["force"] = _text(force)
    return options


def _idempotent(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex if key is None else key}


def _text(flag: bool) -> str:
    return "true" if flag else "false"
