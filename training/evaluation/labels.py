"""Reads labels of test clips that have none in their names: official ground truth, or a table."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from training.data.catalog import DataError, read_table
from training.data.layouts.dcase import DcaseName

_FILE = re.compile(r"ground_truth_(?P<machine>.+)_section_\d+_(?:(?P<domain>source|target)_)?test")
_CONDITIONS = {"0": "normal", "1": "anomaly", "normal": "normal", "anomaly": "anomaly"}
_DOMAINS = {"0": "source", "1": "target", "source": "source", "target": "target", "": ""}
_NAMED = 3  # missing clips that an error names

LISTING_2020 = "eval_data_list.csv"


class Key(NamedTuple):
    """The key of a test clip, independent of the form of its name."""

    machine: str
    section: str
    domain: str  # domain in the name; empty if there is none
    number: str

    @classmethod
    def of(cls, machine: str, name: DcaseName) -> "Key":
        """Create the key of a clip."""
        return cls(machine, name.section, name.domain, name.number)


class Label(NamedTuple):
    """The label of a clip."""

    condition: str
    domain: str  # empty if unknown
    file: str  # name in the table


@dataclass(frozen=True)
class Labels:
    """Labels of a folder or file."""

    path: Path
    by_clip: Mapping[Key, Label]

    @classmethod
    def read(cls, path: Path) -> "Labels":
        """Read labels.

        A folder is that of an official evaluator, with `ground_truth_data/` and, since 2022, `ground_truth_domain/`. A
        file is `eval_data_list.csv` of 2020, or a table with the columns `file` (`<machine>/<split>/<clip>`),
        `condition` and optionally `domain`. Conditions are normal and anomaly or 0 and 1, domains source and target or
        0 and 1.

        Raises:
            DataError: the path does not exist, has none of these forms, or has an invalid row.
        """
        if path.is_dir():
            rows = list(_official(path))
        elif path.name == LISTING_2020:
            rows = list(_listing(path))
        else:
            table = read_table(path, ("file", "condition"))
            rows = [_Row(*_split(path, row["file"]), row["condition"], row.get("domain") or "") for row in table]
        found: dict[Key, Label] = {}
        for row in rows:
            key, label = _read(path, row)
            if found.setdefault(key, label) != label:
                raise DataError(f"{path} labels {row.machine}/{row.file} twice, with different labels.")
        if not found:
            raise DataError(f"{path} labels no clip.")
        return cls(path, found)

    def check(self, keys: Iterable[Key]) -> None:
        """Raise `DataError` if a labeled clip is missing in the tree, although its machine is there."""
        present = set(keys)
        machines = {key.machine for key in present}
        absent = [key for key in self.by_clip if key not in present and key.machine in machines]
        if not machines & {key.machine for key in self.by_clip}:
            absent = list(self.by_clip)
        if absent:
            named = ", ".join(f"{key.machine}/{self.by_clip[key].file}" for key in absent[:_NAMED])
            raise DataError(
                f"{self.path} labels {len(absent)} clips that are not in the tree; the first ones are {named}."
            )


class _Row(NamedTuple):
    machine: str
    file: str
    condition: str
    domain: str


def _read(path: Path, row: _Row) -> tuple[Key, Label]:
    name = DcaseName.parse(PurePosixPath(row.file).stem)
    if name is None:
        raise DataError(f"{path} labels {row.file!r}, a name of no year of DCASE Task 2.")
    condition, domain = _CONDITIONS.get(row.condition.strip().lower()), _DOMAINS.get(row.domain.strip().lower())
    if condition is None or domain is None:
        wrong = row.condition if condition is None else row.domain
        raise DataError(
            f"{path} has {wrong!r} for {row.machine}/{row.file}. A condition is normal or anomaly (0 or 1), a domain "
            "source or target (0 or 1)."
        )
    return Key.of(row.machine, name), Label(condition, domain, row.file)


def _split(path: Path, file: str) -> tuple[str, str]:
    parts = PurePosixPath(file.strip()).parts
    if len(parts) != 3:
        raise DataError(f"{path} labels {file!r}; write <machine>/<split>/<clip>.")
    return parts[0], parts[2]


def _official(folder: Path) -> Iterable[_Row]:
    data = folder / "ground_truth_data"
    files = sorted(data.glob("ground_truth_*_test.csv"))
    if not files:
        raise DataError(f"{data} has no ground_truth_<machine>_section_<xx>_test.csv.")
    for file in files:
        found = _FILE.fullmatch(file.stem)
        if found is None:
            raise DataError(f"{file} is not named ground_truth_<machine>_section_<xx>_test.csv.")
        domains: dict[str, str] = {}
        if found["domain"] is None:
            domains = {row[0]: row[1] for row in _rows(folder / "ground_truth_domain" / file.name)}
        for name, condition, *_ in _rows(file):
            yield _Row(found["machine"], name, condition, found["domain"] or domains.get(name, ""))


def _listing(path: Path) -> Iterable[_Row]:
    """Read the form of 2020: a line with a machine's name, then its clips: file, file with label, 0 or 1."""
    machine = ""
    for row in _rows(path, least=1):
        if len(row) == 1:
            machine = row[0]
        elif len(row) < 3 or not machine:
            raise DataError(f"{path} does not have the form of 2020: {','.join(row)!r}.")
        else:
            yield _Row(machine, row[0], row[2], "source")


def _rows(path: Path, least: int = 2) -> list[list[str]]:
    """Read the rows of a file without a header."""
    if not path.is_file():
        raise DataError(f"There is no label file at {path}.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    short = next((row for row in rows if len(row) < least), None)
    if short is not None:
        raise DataError(f"{path} has the row {','.join(short)!r}, which is truncated.")
    return rows
