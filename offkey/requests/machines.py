"""Describe the calls about machines, their clips, thresholds, noise and drift."""

from offkey.requests.request import Listing, Request, read_nothing
from offkey.schemas import (
    Clip,
    ClipList,
    DriftReport,
    Machine,
    MachineList,
    MachineSettings,
    MachineSummary,
    NoiseClip,
    NoiseList,
    Threshold,
    ThresholdSettings,
)
from offkey.vocabulary import check_machine_id


def machines() -> Listing[MachineList, MachineSummary]:
    """List the machines by id."""
    return Listing(Request("GET", "/machines", MachineList.model_validate_json), lambda page: page.machines)


def machine(machine_id: str) -> Request[Machine]:
    """Return a machine with its bank and its decision threshold."""
    return Request("GET", _path(machine_id), Machine.model_validate_json)


def put_machine(machine_id: str, *, description: str = "") -> Request[Machine]:
    """Create a machine, or replace its description."""
    settings = MachineSettings(description=description)
    return Request("PUT", _path(machine_id), Machine.model_validate_json, json=settings)


def delete_machine(machine_id: str) -> Request[None]:
    """Delete a machine and its bank."""
    return Request("DELETE", _path(machine_id), read_nothing)


def threshold(machine_id: str) -> Request[Threshold]:
    """Return the decision threshold of a machine and the false-alarm rate it promises."""
    return Request("GET", f"{_path(machine_id)}/threshold", Threshold.model_validate_json)


def put_threshold(machine_id: str, settings: ThresholdSettings) -> Request[Machine]:
    """Choose the rule of a machine's decision threshold."""
    return Request("PUT", f"{_path(machine_id)}/threshold", Machine.model_validate_json, json=settings)


def reset_threshold(machine_id: str) -> Request[Machine]:
    """Return a machine's decision threshold to the default rule of the service."""
    return Request("DELETE", f"{_path(machine_id)}/threshold", Machine.model_validate_json)


def drift(machine_id: str) -> Request[DriftReport]:
    """Compare the recent scores of a machine with those of its enrolled clips."""
    return Request("GET", f"{_path(machine_id)}/drift", DriftReport.model_validate_json)


def clips(machine_id: str) -> Listing[ClipList, Clip]:
    """List the enrolled clips of a machine by id."""
    first = Request("GET", f"{_path(machine_id)}/clips", ClipList.model_validate_json)
    return Listing(first, lambda page: page.clips)


def delete_clip(machine_id: str, clip_id: int) -> Request[Machine]:
    """Remove a clip from the bank of a machine."""
    return Request("DELETE", f"{_path(machine_id)}/clips/{clip_id:d}", Machine.model_validate_json)


def noise(machine_id: str) -> Request[list[NoiseClip]]:
    """List the background clips of a machine."""
    return Request("GET", f"{_path(machine_id)}/noise", lambda content: NoiseList.model_validate_json(content).noise)


def delete_noise(machine_id: str, noise_id: int) -> Request[None]:
    """Delete a background clip of a machine."""
    return Request("DELETE", f"{_path(machine_id)}/noise/{noise_id:d}", read_nothing)


def _path(machine_id: str) -> str:
    # Quoting would not do: servers undo it before they look for the route.
    return f"/machines/{check_machine_id(machine_id)}"
