"""What the service answers and takes as JSON. The routes, the use cases and the client share these."""

from service.schemas.access import AuditEntry, AuditList, Key, KeyList, KeySettings, NewKey
from service.schemas.clips import Clip, ClipList, EnrolledClip, Enrollment, Feedback, FeedbackOnClip, Judgment
from service.schemas.conditions import ClipConditions, ConditionWarning
from service.schemas.drift import DomainDrift, DriftReport, DriftWindow
from service.schemas.jobs import Job, JobEntry, JobEntryList, JobList, Model, ModelList, Snapshot, SnapshotList
from service.schemas.machines import (
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
from service.schemas.noise import NoiseClip, NoiseEnrollment, NoiseList
from service.schemas.operations import Health, Info, Problem
from service.schemas.scores import ClipScore, Localization, Neighbor, Region, Scores, WindowScore

__all__ = [
    "MAX_DESCRIPTION_CHARACTERS",
    "AuditEntry",
    "AuditList",
    "Clip",
    "ClipConditions",
    "ClipCounts",
    "ClipList",
    "ClipScore",
    "ConditionWarning",
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
