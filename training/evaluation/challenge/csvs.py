"""Writes the CSV files that the official evaluators read: a file and its score or decision in each line."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from training.evaluation.challenge.evaluation import Evaluation
from training.evaluation.challenge.years import DOMAINS
from training.evaluation.tables import write_text
from training.evaluation.tree import JudgedMachine


def write_csvs(found: Evaluation, folder: Path) -> None:
    """Write `<bundle>/anomaly_score_*.csv` and `<bundle>/decision_result_*.csv`.

    Scores have all their digits, so that the official evaluator computes the same figures.
    """
    for (bundle, name), judged in found.judged.items():
        machine = next(machine for machine in found.machines if machine.name == name)
        scores = [repr(float(score)) for score in judged.scores]
        decisions = [str(int(alarm)) for alarm in judged.alarms]
        for which, places in _files(machine):
            for kind, values in (("anomaly_score", scores), ("decision_result", decisions)):
                rows = [(machine.test[place].name, values[place]) for place in places]
                write_text(folder / bundle / f"{kind}_{machine.folder}_{which}.csv", _text(rows))


def _files(machine: JudgedMachine) -> Iterable[tuple[str, list[int]]]:
    """Yield the end of each file name and the indexes of its test clips."""
    every = list(range(len(machine.test)))
    if machine.form == "2020":
        yield f"id_{machine.section}", every
    elif machine.form == "2021":
        for domain in DOMAINS:
            own = [place for place in every if machine.test[place].domain == domain]
            if own:
                yield f"section_{machine.section}_{domain}_test", own
    else:
        yield f"section_{machine.section}_test", every


def _text(rows: Iterable[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
