"""A machine: one physical unit that is heard, and the conditions it is heard under."""

import re
from enum import StrEnum

from offkey.errors import ErrorKind, OffkeyError

MACHINE_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class Domain(StrEnum):
    """DCASE Task 2: `source` is the condition known well, `target` the shifted one with few clips."""

    SOURCE = "source"
    TARGET = "target"


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
