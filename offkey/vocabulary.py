"""Define the words of the API that the service, the client and the command line share."""

import re
from enum import StrEnum

from offkey.errors import ErrorKind, OffkeyError

MACHINE_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MACHINE_PREFIX_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # beginning of a machine id
KEY_ID_PATTERN = r"^[0-9a-f]{12}$"
KEY_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}$"
# Names in the audit log for changes made without a key. No key may have one of them.
ANONYMOUS_NAME = "anonymous"
COMMAND_LINE_NAME = "command line"

MIN_FALSE_ALARM_RATE = 1e-6  # a million recordings could promise no less


class Domain(StrEnum):
    """DCASE Task 2: `source` is the condition known well, `target` the shifted one with few clips."""

    SOURCE = "source"
    TARGET = "target"


class Rule(StrEnum):
    """The way a decision threshold is chosen."""

    CONFORMAL = "conformal"  # the only one that promises a rate
    GAMMA = "gamma"  # a quantile of a fitted gamma distribution, as in the baselines of DCASE Task 2
    MANUAL = "manual"


class View(StrEnum):
    """The part of a clip that an anomaly score is about."""

    STEADY = "steady"  # whole windows
    EVENT = "event"  # the most anomalous half second


class Condition(StrEnum):
    """Whether a clip was recorded like the enrolled clips."""

    LIKE_ENROLLED = "like-enrolled"
    UNLIKE_ENROLLED = "unlike-enrolled"
    UNKNOWN = "unknown"  # too few enrolled clips have acoustics


class Verdict(StrEnum):
    """Direction in which recent scores have moved from the scores of the enrolled clips."""

    UNKNOWN = "unknown"
    STEADY = "steady"
    HIGHER = "higher"
    LOWER = "lower"


class Measure(StrEnum):
    """Property of a recording that can differ from all enrolled clips."""

    LEVEL = "level"
    PAUSES = "pauses"
    BANDWIDTH = "bandwidth"
    SPECTRUM = "spectrum"
    CLIPPING = "clipping"
    SAMPLE_RATE = "sample-rate"
    CODEC = "codec"
    CHANNELS = "channels"
    LENGTH = "length"  # shorter than anything enrolled
    POLARITY = "polarity"  # channels that cancel each other
    OUT_OF_BAND = "out-of-band"  # sound above what the model receives
    MACHINE = "machine-not-audible"  # found from embeddings, not from an envelope


class Scope(StrEnum):
    """Permission of an API key. `enroll` includes `score`; `admin` includes both."""

    SCORE = "score"  # score clips; see machines, clips, thresholds, limits and metrics
    ENROLL = "enroll"  # create machines, enroll, give feedback, delete clips
    ADMIN = "admin"  # choose thresholds, delete machines, manage keys, read the audit log


class JobKind(StrEnum):
    """Task of a job."""

    ENROLL = "enroll"  # enrolls the clips of a zip archive
    SNAPSHOT = "snapshot"
    REEMBED = "reembed"  # moves banks to the current bundle


class JobState(StrEnum):
    """Progress of a job. `done`, `failed` and `canceled` are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)


class EntryStatus(StrEnum):
    """Result of one entry of a job: a clip of an archive, or a machine."""

    ENROLLED = "enrolled"
    DUPLICATE = "duplicate"
    HELD_BACK = "held-back"
    REFUSED = "refused"
    MOVED = "moved"
    UNCHANGED = "unchanged"


def check_machine_id(machine_id: str) -> str:
    """Return `machine_id` unchanged.

    Raises:
        OffkeyError: it is not 1 to 64 letters, digits, dots, dashes or underscores beginning with a letter
            or digit.
    """
    if re.fullmatch(MACHINE_ID_PATTERN.removesuffix("$"), machine_id, re.ASCII) is None:
        shown = machine_id if len(machine_id) <= 80 else f"{machine_id[:80]}..."
        raise OffkeyError(
            ErrorKind.INVALID_MACHINE_ID,
            f"The machine id {shown!r} is not usable. Use 1 to 64 letters, digits, dots, dashes or "
            "underscores, beginning with a letter or digit.",
        )
    return machine_id
