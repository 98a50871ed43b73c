"""Machine ids, which come from outside and name things inside."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import MACHINE_ID_PATTERN, check_machine_id


@pytest.mark.parametrize("machine_id", ["fan-1", "A", "0", "a.b_c-d", "x" * 64])
def test_usable_ids_come_back_unchanged(machine_id: str) -> None:
    assert check_machine_id(machine_id) == machine_id


@pytest.mark.parametrize(
    "machine_id",
    [
        "",
        ".",
        "..",
        "../etc/passwd",
        "-fan",
        "_fan",
        "fan 1",
        "fan/1",
        "fan\n",
        "fan\x00",
        "fän",
        "\uff46an",
        "x" * 65,
        "x" * 10_000,
    ],
)
def test_unusable_ids_are_refused_with_a_short_message(machine_id: str) -> None:
    with pytest.raises(OffkeyError) as refused:
        check_machine_id(machine_id)
    assert refused.value.kind is ErrorKind.INVALID_MACHINE_ID
    assert len(refused.value.detail) < 300


@given(st.text(max_size=80))
def test_the_check_and_the_documented_pattern_agree(machine_id: str) -> None:
    documented = re.fullmatch(MACHINE_ID_PATTERN.strip("^$"), machine_id) is not None
    try:
        check_machine_id(machine_id)
        accepted = True
    except OffkeyError:
        accepted = False
    assert accepted == documented
