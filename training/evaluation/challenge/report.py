"""Writes the results of an evaluation as JSON and as Markdown."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from service.encoder.processor import processor_name
from training.evaluation.bootstrap import LEVEL, Interval
from training.evaluation.challenge.evaluation import ALL, Evaluation
from training.evaluation.challenge.years import ALARMS, COLUMNS, DOMAINS, MEANS, official_mean
from training.evaluation.tables import describe, ends, table, with_ends, write_json, write_text
from training.run import environment, git_revision

NAME = "evaluation"
_RATE = "false_alarm_rate"
_TITLES = {"auc": "AUC", "pauc": "pAUC", "f1": "F1", "official": "official score", _RATE: "false-alarm rate"}
_NAMED = 20  # unusable clips in the Markdown; the JSON has all


def write_report(found: Evaluation, folder: Path, command: str) -> None:
    """Write `evaluation.json` and `evaluation.md`."""
    write_json(folder / f"{NAME}.json", as_json(found, command))
    write_text(folder / f"{NAME}.md", f"# Evaluation\n\n```sh\n{command}\n```\n\n{markdown(found)}")


def as_json(found: Evaluation, command: str) -> dict[str, Any]:
    """Return all results; undefined figures are null."""
    return {
        "command": command,
        "form": found.form,
        "requested_false_alarm_rate": found.config.false_alarm_rate,
        "channel": found.config.channel or "mean",
        "backend": found.config.backend,
        "git_revision": git_revision(),
        "environment": {"processor": processor_name(), **environment()},
        "interval": LEVEL,
        "bundles": [
            {"name": name, "bundle": f"{one.name}/{one.version}", "embedding_space_id": one.embedding_space_id}
            | {"model_sha256": one.model_sha256}
            for name, one in found.manifests.items()
        ],
        "machines": [
            describe(machine) | {"folder": machine.folder, "section": machine.section} for machine in found.machines
        ],
        "refused": [{"clip": clip, "reason": reason} for clip, reason in found.refused.items()],
        "figures": _card(found, command),
        "thresholds": list(_thresholds(found)),
        "scores": list(_scores(found)),
        "means": list(_means(found)),
        "differences": list(_differences(found)),
    }


def _card(found: Evaluation, command: str) -> list[dict[str, str | float]]:
    """List the figures for a bundle's card, as `offkey export --measured` reads them."""
    rows: list[dict[str, str | float]] = []
    for bundle in found.manifests:
        for column in _shown(found):
            interval = found.mean(bundle, ALL, official_mean(found.form), column)
            if interval is not None:
                name = f"{bundle}: {_title(column)}, {official_mean(found.form)} mean over {found.config.tree.name}"
                rows.append({"name": name, "value": interval.value, "command": command})
    return rows


def _thresholds(found: Evaluation) -> Iterable[dict[str, Any]]:
    for (bundle, machine), judged in found.judged.items():
        yield {
            "bundle": bundle,
            "machine": machine,
            "decision_threshold": judged.threshold.value,
            "promised_false_alarm_rate": judged.threshold.promised_false_alarm_rate,
            "domains": {str(d): promise.false_alarm_rate for d, promise in judged.threshold.promises.items()},
        }


def _scores(found: Evaluation) -> Iterable[dict[str, Any]]:
    for (bundle, machine), judged in found.judged.items():
        for metric in judged.figures:
            about = {"bundle": bundle, "machine": machine, "metric": metric}
            yield about | ends(found.figure(bundle, machine, metric))


def _means(found: Evaluation) -> Iterable[dict[str, Any]]:
    for bundle in found.manifests:
        for scope in (*found.folders, ALL):
            about = {"bundle": bundle, "machine": scope}
            for how in MEANS:
                for column in COLUMNS[found.form]:
                    yield about | {"mean": how, "metric": column} | ends(found.mean(bundle, scope, how, column))
            yield (
                about | {"mean": "arithmetic", "metric": _RATE} | ends(found.mean(bundle, scope, "arithmetic", _RATE))
            )


def _differences(found: Evaluation) -> Iterable[dict[str, Any]]:
    first, *others = found.manifests
    how = official_mean(found.form)
    for bundle in others:
        for column in _shown(found):
            about = {"bundle": bundle, "less": first, "mean": how, "metric": column}
            yield about | ends(found.difference(bundle, first, how, column))


def markdown(found: Evaluation) -> str:
    """Format the tables; brackets contain 95 % intervals."""
    how, shown = official_mean(found.form), _shown(found)
    rows = [
        [
            bundle,
            *(with_ends(found.mean(bundle, ALL, how, column)) for column in shown),
            with_ends(found.mean(bundle, ALL, "arithmetic", _RATE)),
        ]
        for bundle in found.manifests
    ]
    requested = f"{_TITLES[_RATE]} ({found.config.false_alarm_rate:g} requested)"
    parts = [
        f"## {how.capitalize()} means over all machines, as in {_year(found)}",
        table(["bundle", *map(_title, shown), requested], rows),
    ]
    first, *others = found.manifests
    if others:
        rows = [
            [bundle, *(with_ends(found.difference(bundle, first, how, c), sign="+") for c in shown)]
            for bundle in others
        ]
        parts += [f"## Less {first}", table(["bundle", *map(_title, shown)], rows)]
    for bundle in found.manifests:
        parts += [f"## {bundle}, by machine", _areas(found, bundle)]
        parts += [f"## {bundle}, alarms", _alarms(found, bundle)]
    if found.refused:
        named = [f"- {clip}: {reason}" for clip, reason in found.refused.items()]
        left = len(named) - _NAMED
        more = [f"- and {left} more, in {NAME}.json"] if left > 0 else []
        parts += [f"## {len(named)} clips could not be used", "\n".join([*named[:_NAMED], *more])]
    return "\n\n".join(parts) + "\n"


def _areas(found: Evaluation, bundle: str) -> str:
    columns = [column for column in _parts(found) if column.split("_")[0] in ("auc", "pauc")]
    rows = [
        [machine.name, *(with_ends(found.figure(bundle, machine.name, column)) for column in columns)]
        for machine in found.machines
    ]
    how = official_mean(found.form)
    for folder in found.folders:
        if sum(machine.folder == folder for machine in found.machines) > 1:
            means = [with_ends(found.mean(bundle, folder, how, column)) for column in columns]
            rows.append([f"{folder}, {how} mean", *means])
    return table(["machine", *map(_title, columns)], rows)


def _alarms(found: Evaluation, bundle: str) -> str:
    domains = DOMAINS if "official" in COLUMNS[found.form] else ("",)
    columns = [f"{name}_{domain}".rstrip("_") for name in (_RATE, *ALARMS) for domain in domains]
    rows = []
    for machine in found.machines:
        threshold = found.judged[bundle, machine.name].threshold
        figures = [found.figure(bundle, machine.name, column) for column in columns]
        thresholds = [f"{threshold.value:.3f}", f"{threshold.promised_false_alarm_rate:.3f}"]
        count = len(domains)
        rows.append([machine.name, *thresholds, *map(with_ends, figures[:count]), *map(_plain, figures[count:])])
    return table(["machine", "threshold", "promised", *map(_title, columns)], rows)


def _shown(found: Evaluation) -> Sequence[str]:
    """List the means that summarize a bundle."""
    if "official" not in COLUMNS[found.form]:
        return ("auc", "pauc")
    return ("official", "auc_source", "auc_target", "pauc")


def _parts(found: Evaluation) -> Sequence[str]:
    """List the figures of a section that enter the means of the year."""
    return COLUMNS[found.form].get("official", ("auc", "pauc"))


def _title(column: str) -> str:
    if column in _TITLES:
        return _TITLES[column]
    name, _, domain = column.rpartition("_")
    if domain in DOMAINS:
        return f"{_TITLES.get(name, name)} {domain}"
    return column


def _plain(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.value:.3f}"


def _year(found: Evaluation) -> str:
    return {"2022": "DCASE 2022 and later", "plain": "a plain tree"}.get(found.form, f"DCASE {found.form}")
