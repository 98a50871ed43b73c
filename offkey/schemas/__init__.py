"""Define the JSON of the API. The routes, the use cases and the clients share these models."""

from offkey.schemas.acoustics import AcousticsWarning, ClipAcoustics
from offkey.schemas.clips import Clip, ClipList, EnrolledClip, Enrollment, Feedback, FeedbackOnClip, Judgment
from offkey.schemas.drift import DomainDrift, DriftReport, DriftWindow
from offkey.schemas.jobs import Job, JobEntry, JobEntryList, JobList, Model, ModelList, Snapshot, SnapshotList
from offkey.schemas.keys import AuditEntry, AuditList, Key, KeyList, KeySettings, NewKey
from offkey.schemas.machines import (
    MAX_DESCRIPTION_CHARACTERS,
    ClipCounts,
    DomainPromise,
    Machine,
    MachineList,
    MachineSettings,
    MachineSummary,
    Threshold,
    ThresholdChoice,
    ThresholdSettings,
)
from offkey.schemas.noise import NoiseClip, NoiseEnrollment, NoiseList
from offkey.schemas.operations import Health, Info, Problem
from offkey.schemas.scores import ClipScore, DecidedBy, Localization, Neighbor, Region, Scores, WindowScore

__all__ = [
    "MAX_DESCRIPTION_CHARACTERS",
    "AcousticsWarning",
    "AuditEntry",
    "AuditList",
    "Clip",
    "ClipAcoustics",
    "ClipCounts",
    "ClipList",
    "ClipScore",
    "DecidedBy",
    "DomainDrift",
    "DomainPromise",
    "DriftReport",
    "DriftWindow",
    "EnrolledClip",
    "Enrollment",
    "Feedback",
    "FeedbackOnClip",
    "Health",
    "Info",
    "Job",
    "JobEntry",
    "JobEntryList",
    "JobList",
    "Judgment",
    "Key",
    "KeyList",
    "KeySettings",
    "Localization",
    "Machine",
    "MachineList",
    "MachineSettings",
    "MachineSummary",
    "Model",
    "ModelList",
    "Neighbor",
    "NewKey",
    "NoiseClip",
    "NoiseEnrollment",
    "NoiseList",
    "Problem",
    "Region",
    "Scores",
    "Snapshot",
    "SnapshotList",
    "Threshold",
    "ThresholdChoice",
    "ThresholdSettings",
    "WindowScore",
]
