"""Writes the results of an experiment as JSON and as Markdown."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.domain.backends import DEFAULT_BACKEND
from service.encoder.processor import processor_name
from training.evaluation.bootstrap import LEVEL, Interval
from training.evaluation.choice import FIGURE
from training.evaluation.comparison import ALL, Cell, Key, directions, summaries
from training.evaluation.config import LOGMEL, ORACLE
from training.evaluation.experiment import Result
from training.evaluation.noise import KINDS, ROLES
from training.evaluation.protocol import VERSION
from training.evaluation.scores import SCORERS
from training.evaluation.tables import describe, ends, table, with_ends, write_json, write_text
from training.evaluation.timing import SPEED
from training.run import environment, git_revision

_COMPARED = ("auc", "official")
_TITLES = {
    "nearest": "distance to the nearest train clip",
    "domain-nearest": "distance to the nearest train clip of a domain, standardized, the smaller",
    "served": "as `POST /score` returns it",
}
_SHOWN = (
    ("nearest", "auc", "AUC"),
    ("nearest", "official", "Official score"),
    ("domain-nearest", "official", "Official score"),
    ("served", "auc", "AUC"),
    ("served", "official", "Official score"),
)
_ON_CARD = (_SHOWN[0], *_SHOWN[3:])
_GAPS = (_SHOWN[0], _SHOWN[2])  # the paper's scoring is included, because its share was published


def write(result: Result, path: Path, command: str) -> None:
    """Write `path` (JSON), and a Markdown file next to it."""
    write_json(path, as_json(result, command))
    write_text(path.with_suffix(".md"), f"# Experiment\n\n```sh\n{command}\n```\n\n{markdown(result)}")


def as_json(result: Result, command: str) -> dict[str, Any]:
    """Return all results; undefined figures are null."""
    about = {
        "command": command,
        "config": asdict(result.config),
        "protocol": VERSION,
        "git_revision": git_revision(),
        "environment": {"processor": processor_name(), **environment()},
        "provider": result.provider,
        "notes": result.notes,
        "methods": list(_methods(result)),
        "machines": [describe(machine) for machine in result.machines],
        "noise": {
            kind: {role: [one.name for one in result.noise.recordings[kind, role]] for role in ROLES} for kind in KINDS
        },
        "interval": LEVEL,
    }
    rows: dict[str, Any] = {"chosen": list(_choices(result))} if result.choices else {}
    rows |= {
        "figures": figures(result, command),
        "differences": list(_differences(result)),
        "gaps": list(_gaps(result)),
    }
    return about | rows | {"scores": list(_scores(result))}


def figures(result: Result, command: str) -> list[dict[str, str | float]]:
    """List the figures for a bundle's card: name, value and command, as `offkey export --measured` reads them."""
    rows: list[tuple[str, float]] = []
    for method in result.compared:
        named = f"oracle of {result.config.reference}" if method == ORACLE else _title(result, method)
        for scorer, metric, title in _ON_CARD:
            read = "" if scorer == "nearest" else f" as served{_backend(result)}"
            cells = summaries(result.config.snr_db) if scorer == "nearest" else summaries(())
            for cell in cells:
                found = result.comparison.interval(Key(method, scorer, ALL, cell, metric))
                if found is not None:
                    rows.append((f"{named}: {title}{read}, {cell}", found.value))
    rows += [(f"{name}: {SPEED}", value) for name, value in result.milliseconds.items()]
    return [{"name": name, "value": value, "command": command} for name, value in rows]


def _methods(result: Result) -> Iterable[dict[str, Any]]:
    yield {"name": LOGMEL, "front_end_of": result.config.reference}
    for name, manifest in result.manifests.items():
        cost = result.milliseconds.get(name)
        yield {
            "name": name,
            "bundle": f"{manifest.name}/{manifest.version}",
            "embedding_space_id": manifest.embedding_space_id,
            "model_sha256": manifest.model_sha256,
            "git_revision": manifest.git_revision,
            "objective": manifest.provenance.objective,
            "steps": manifest.provenance.steps,
            "dim": manifest.dim,
            "ms_per_10_s": cost,
        }
    for group, members in result.config.groups.items():
        yield {"name": group, "mean_of": members}
    yield {"name": ORACLE, "embeddings_of": result.config.reference}


def _scores(result: Result) -> Iterable[dict[str, Any]]:
    for key in result.comparison.keys:
        yield _named(key) | ends(result.comparison.interval(key))


def _differences(result: Result) -> Iterable[dict[str, Any]]:
    """Yield the difference of every pair of methods in the cells of the tables."""
    shown = {*summaries(result.config.snr_db), *directions(result.config.snr_db)}
    for key in result.comparison.keys:
        if key.cell in shown and key.metric in _COMPARED:
            for other in result.compared[: result.compared.index(key.method)]:
                yield _named(key) | {"less": other} | ends(result.comparison.difference(key, other))


def _gaps(result: Result) -> Iterable[dict[str, Any]]:
    reference, snrs = result.config.reference, result.config.snr_db
    shown = {*summaries(snrs)[1:], *directions(snrs)}
    for key in result.comparison.keys:
        if key.cell in shown and key.metric in _COMPARED and key.method not in (reference, ORACLE):
            gap = result.comparison.gap(key, reference, ORACLE)
            if gap is not None:
                yield _named(key) | {"gap": ends(gap.size), "share": gap.share and ends(gap.share)}


def _choices(result: Result) -> Iterable[dict[str, Any]]:
    """Yield the choice without each machine; the last row is the mean over machines."""
    for choice in result.choices:
        yield {
            "machine": choice.machine,
            "method": choice.method or None,
            "share": None if math.isnan(choice.share) else choice.share,
            "scorer": FIGURE.scorer,
            "condition": FIGURE.cell.condition,
            "metric": FIGURE.metric,
            **ends(choice.figure),
            "less": result.config.baseline,
            "difference": ends(choice.difference),
        }


def _named(key: Key) -> dict[str, Any]:
    return {
        "method": key.method,
        "scorer": key.scorer,
        "machine": key.machine,
        "condition": key.cell.condition,
        "snr_db": key.cell.snr_db,
        "metric": key.metric,
    }


def markdown(result: Result) -> str:
    """Format the tables; brackets contain 95 % intervals."""
    parts = []
    for scorer, metric, title in _SHOWN:
        parts += [
            f"## {title}, {_TITLES[scorer]}{_backend(result) if scorer == 'served' else ''}",
            _main_table(result, scorer, metric),
            "By direction of the mismatch, bank to tests:",
            _direction_table(result, scorer, metric),
        ]
    parts += ["## Noisy, by machine: AUC, " + _TITLES["nearest"], _machine_table(result)]
    parts += [
        f"## Noisy, against {result.config.baseline} and {LOGMEL}: differences of AUC",
        _difference_table(result),
    ]
    if result.choices:
        parts += [f"## Chosen with one machine left out, by noisy AUC{_backend(result)}", _choice_table(result)]
    for scorer, metric, title in _GAPS:
        head = f"## Share of the gap from {result.config.reference} to the oracle that is closed"
        parts += [f"{head}: {title}, {_TITLES[scorer]}", _gap_table(result, scorer, metric)]
    if result.notes:
        parts += ["## Notes on the data", "\n".join(f"- {note}" for note in result.notes)]
    return "\n\n".join(parts) + "\n"


def _title(result: Result, method: str) -> str:
    """Format the name of a method; a group gets the number of its methods."""
    members = result.config.groups.get(method, ())
    return f"{method}, mean of {len(members)}" if members else method


def _backend(result: Result) -> str:
    """Format the backend; empty for the default of the service."""
    return "" if result.config.backend == DEFAULT_BACKEND else f" with {result.config.backend}"


def _main_table(result: Result, scorer: str, metric: str) -> str:
    cells = summaries(result.config.snr_db)
    rows = []
    for method in result.compared:
        found = [result.comparison.interval(Key(method, scorer, ALL, cell, metric)) for cell in cells]
        cost = f"{result.milliseconds[method]:.1f}" if method in result.milliseconds else ""
        rows.append([_title(result, method), *(_figure(one) for one in found[:-1]), with_ends(found[-1]), cost])
    return table(["method", *map(str, cells), "ms per 10 s"], rows)


def _direction_table(result: Result, scorer: str, metric: str) -> str:
    cells = directions(result.config.snr_db)
    rows = []
    for method in result.compared:
        found = [result.comparison.interval(Key(method, scorer, ALL, cell, metric)) for cell in cells]
        rows.append([_title(result, method), *map(with_ends, found)])
    return table(["method", *map(str, cells)], rows)


def _machine_table(result: Result) -> str:
    cell, names = Cell("noisy", None), [machine.name for machine in result.machines]
    rows = []
    for method in result.compared:
        found = [result.comparison.interval(Key(method, "nearest", name, cell, "auc")) for name in names]
        rows.append([_title(result, method), *map(with_ends, found)])
    return table(["method", *names], rows)


def _difference_table(result: Result) -> str:
    others = dict.fromkeys((result.config.baseline, LOGMEL))
    rows = []
    for method in result.compared:
        row = [_title(result, method)]
        for scorer in SCORERS:
            key = Key(method, scorer, ALL, Cell("noisy", None), "auc")
            row += [
                with_ends(result.comparison.difference(key, other), sign="+") if other != method else ""
                for other in others
            ]
        rows.append(row)
    heads = [f"{scorer}: less {other}" for scorer in SCORERS for other in others]
    return table(["method", *heads], rows)


def _choice_table(result: Result) -> str:
    rows = []
    for choice in result.choices:
        share = "" if math.isnan(choice.share) else f"{100 * choice.share:.0f} %"
        title = choice.method and _title(result, choice.method)
        rows.append([choice.machine, title, share, with_ends(choice.figure), with_ends(choice.difference, sign="+")])
    return table(["machine left out", "chosen", "in", "AUC there", f"less {result.config.baseline}"], rows)


def _gap_table(result: Result, scorer: str, metric: str) -> str:
    reference, snrs = result.config.reference, result.config.snr_db
    noisy = summaries(snrs)[-1]
    cells = [*summaries(snrs)[1:-1], *directions(snrs), noisy]
    rows = []
    for method in result.compared:
        if method not in (reference, ORACLE):
            keys = [Key(method, scorer, ALL, cell, metric) for cell in cells]
            keys += [Key(method, scorer, machine.name, noisy, metric) for machine in result.machines]
            rows.append([_title(result, method), *(_share(result, key) for key in keys)])
    machines = [f"{noisy}, {machine.name}" for machine in result.machines]
    return table(["method", *map(str, cells), *machines], rows)


def _share(result: Result, key: Key) -> str:
    gap = result.comparison.gap(key, result.config.reference, ORACLE)
    if gap is None or gap.share is None:
        return "no gap"
    share = f"{100 * gap.share.value:.0f} %"
    return (
        f"{share} [{100 * gap.share.low:.0f}, {100 * gap.share.high:.0f}]" if gap.bounded else f"{share} (unsure gap)"
    )


def _figure(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.value:.3f}"
