"""Use an Offkey service from Python: `from offkey import Client, AsyncClient`.

Names are imported when they are first used, so that `import offkey` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offkey.async_client import AsyncClient
    from offkey.client import Client
    from offkey.errors import ErrorKind, OffkeyError
    from offkey.problems import ProblemError, UnreachableError
    from offkey.schemas import (
        AcousticsWarning,
        AuditEntry,
        Clip,
        ClipAcoustics,
        ClipCounts,
        ClipScore,
        DomainDrift,
        DomainPromise,
        DriftReport,
        DriftWindow,
        EnrolledClip,
        Enrollment,
        Feedback,
        FeedbackOnClip,
        Health,
        Info,
        Job,
        JobEntry,
        Judgment,
        Key,
        KeySettings,
        Localization,
        Machine,
        MachineSettings,
        MachineSummary,
        Model,
        Neighbor,
        NewKey,
        NoiseClip,
        NoiseEnrollment,
        Problem,
        Region,
        Scores,
        Snapshot,
        Threshold,
        ThresholdChoice,
        ThresholdSettings,
        WindowScore,
    )
    from offkey.vocabulary import (
        Domain,
        EntryStatus,
        JobKind,
        JobState,
        Measure,
        Rule,
        Scope,
        Verdict,
    )

    __version__: str

__all__ = [
    "AcousticsWarning",
    "AsyncClient",
    "AuditEntry",
    "Client",
    "Clip",
    "ClipAcoustics",
    "ClipCounts",
    "ClipScore",
    "Domain",
    "DomainDrift",
    "DomainPromise",
    "DriftReport",
    "DriftWindow",
    "EnrolledClip",
    "Enrollment",
    "EntryStatus",
    "ErrorKind",
    "Feedback",
    "FeedbackOnClip",
    "Health",
    "Info",
    "Job",
    "JobEntry",
    "JobKind",
    "JobState",
    "Judgment",
    "Key",
    "KeySettings",
    "Localization",
    "Machine",
    "MachineSettings",
    "MachineSummary",
    "Measure",
    "Model",
    "Neighbor",
    "NewKey",
    "NoiseClip",
    "NoiseEnrollment",
    "OffkeyError",
    "Problem",
    "ProblemError",
    "Region",
    "Rule",
    "Scope",
    "Scores",
    "Snapshot",
    "Threshold",
    "ThresholdChoice",
    "ThresholdSettings",
    "UnreachableError",
    "Verdict",
    "WindowScore",
    "__version__",
]

# Modules with the public names, the ones that load quickly first.
_MODULES = ("errors", "vocabulary", "schemas", "problems", "client", "async_client")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'offkey' has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("offkey")
    else:
        modules = (import_module(f"offkey.{module}") for module in _MODULES)
        found = next(getattr(module, name) for module in modules if hasattr(module, name))
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
