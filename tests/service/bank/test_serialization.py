"""Serialized calibrations: equal after loading, and refused if their fields are not those of the classes."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from offkey.vocabulary import Domain
from service.bank import BankRows, Calibration, CalibrationRows
from service.bank.serialization import dump, load


@pytest.fixture
def calibration(make_rows: Callable[..., BankRows]) -> Calibration:
    return Calibration.fit(make_rows(1, clips=30), CalibrationRows())


def edited(data: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """Change the tree of a serialized calibration."""
    arrays = load_arrays(data)
    tree = json.loads(arrays["tree"].tobytes())
    edit(tree)
    return save({**arrays, "tree": np.frombuffer(json.dumps(tree).encode(), np.uint8)})


def test_arrays_keep_their_type_shape_and_memory_order(calibration: Calibration) -> None:
    """The memory order too, because the rounding of a matrix product depends on it."""
    whole = np.arange(24, dtype=np.int64).reshape(4, 6)
    for array in (whole, whole.T, whole[:, ::2], np.zeros((0, 3), np.float32), np.array([True, False])):
        (loaded,) = load(dump(replace(calibration, members={Domain.SOURCE: array}))).members.values()
        np.testing.assert_array_equal(loaded, array, strict=True)
        assert loaded.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.parametrize(
    "edit",
    [
        lambda tree: tree.pop("clips_in_reference"),
        lambda tree: tree.update(another=1),
        lambda tree: tree["detector"].update(another=tree["detector"].pop("backend")),
        lambda tree: tree["detector"]["_fitted"]["fields"].pop("_covariance"),
    ],
    ids=["missing", "added", "renamed", "missing-in-backend"],
)
def test_other_fields_than_those_of_the_class_are_refused(
    calibration: Calibration, edit: Callable[[dict[str, Any]], object]
) -> None:
    with pytest.raises(ValueError, match="the fields of"):
        load(edited(dump(calibration), edit))


@pytest.mark.parametrize("name", ["os:system", "Mahalanobis", "service.store.store:Store"])
def test_a_file_chooses_only_among_the_served_backends(calibration: Calibration, name: str) -> None:
    def edit(tree: dict[str, Any]) -> None:
        tree["detector"]["_fitted"]["backend"] = name

    with pytest.raises(KeyError, match=name):
        load(edited(dump(calibration), edit))


def test_a_field_of_another_type_is_refused(calibration: Calibration) -> None:
    with pytest.raises(TypeError, match="object cannot be serialized"):
        dump(replace(calibration, clips_in_reference=object()))  # type: ignore[arg-type]
