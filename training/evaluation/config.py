"""The config of an experiment: methods, machines and noise."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from service.domain.backends import DEFAULT_BACKEND, check_backend
from training.config import ConfigError
from training.toml_settings import apply_overrides, from_tables, read_toml

LOWEST_SNR, HIGHEST_SNR = -10.0, 30.0  # dB
LOGMEL = "log-mel"  # baseline of every experiment
ORACLE = "oracle"
_RESERVED = (LOGMEL, ORACLE)


@dataclass(frozen=True)
class MethodConfig:
    """An encoder to compare: a bundle, or the config of a training run."""

    name: str = ""  # name in the tables
    bundle: str = ""  # folder of a bundle
    config: str = ""  # TOML file of a training run
    set: tuple[str, ...] = ()  # key=value overrides of that file
    group: str = ""  # group of methods with one config and several training seeds


@dataclass(frozen=True)
class ExperimentConfig:
    """All settings of an experiment."""

    machines: str = ""  # folder of machines in the DCASE layout
    noise: str = ""  # folder of stationary/ and nonstationary/ noise
    snr_db: tuple[float, ...] = (0.0, -5.0)  # signal-to-noise ratios
    seeds: int = 5  # number of draws of the noise
    methods: tuple[MethodConfig, ...] = ()
    backend: str = DEFAULT_BACKEND  # backend of the scorer `served`
    oracle: str = ""  # method of the oracle, and reference of the others; empty: `frozen`, or the first one
    choose: tuple[str, ...] = ()  # methods or groups to choose from with one machine left out
    bootstrap: int = 1000  # replicates of an interval
    timing_rounds: int = 40  # timed clips per bundle
    checkpoint: str = ""  # encoder.checkpoint of the training runs
    manifest: str = ""  # data.manifest of the training runs
    work: str = "runs/experiment"  # folder of cached embeddings and trained methods; may be deleted
    device: Literal["auto", "cpu", "cuda"] = "auto"  # device of the bundles; auto: a GPU if there is one
    workers: int = 0  # number of threads; 0: one per core

    @property
    def reference(self) -> str:
        """Name of the method that others are compared with."""
        names = [method.name for method in self.methods]
        return self.oracle or ("frozen" if "frozen" in names else names[0])

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Names of the methods, by group."""
        found: dict[str, tuple[str, ...]] = {}
        for method in self.methods:
            if method.group:
                found[method.group] = (*found.get(method.group, ()), method.name)
        return found

    @property
    def baseline(self) -> str:
        """The reference or its group, from which differences are computed."""
        return next((group for group, names in self.groups.items() if self.reference in names), self.reference)


def load_experiment(
    path: Path | None, overrides: Sequence[str] = (), options: dict[str, Any] | None = None
) -> ExperimentConfig:
    """Read an experiment from a TOML file, `key=value` overrides and options; later ones take precedence.

    Methods of the options are added after those of the file. Paths of a method in the file are relative to the file,
    all other paths to the working folder.

    Raises:
        ConfigError: no such file, an unknown key, a value of the wrong type, or values that cannot be used together.
    """
    table = read_toml(path) if path else {}
    apply_overrides(table, overrides)
    config = from_tables(ExperimentConfig, table)
    if path:
        config = replace(config, methods=tuple(_placed(method, path.parent) for method in config.methods))
    if options:
        changes = from_tables(ExperimentConfig, options)
        given = {name: getattr(changes, name) for name in options}
        config = replace(config, **given | {"methods": (*config.methods, *changes.methods)})
    _check(config)
    return config


def _placed(method: MethodConfig, folder: Path) -> MethodConfig:
    return replace(
        method,
        bundle=method.bundle and str(folder / method.bundle),
        config=method.config and str(folder / method.config),
    )


def parse_ratios(text: str) -> tuple[float, ...]:
    """Read signal-to-noise ratios in dB from text like `0,-5`. Raises `ConfigError`."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{text!r} is not a list of ratios. Write --snr 0,-5.") from None


def _check(config: ExperimentConfig) -> None:
    for key in ("machines", "noise"):
        if not getattr(config, key):
            raise ConfigError(f"The folder of {key} is missing (`{key}`).")
    wrong = [snr for snr in config.snr_db if not LOWEST_SNR <= snr <= HIGHEST_SNR or math.isnan(snr)]
    if wrong or not config.snr_db:
        what = f"{wrong[0]:g}" if wrong else "an empty list"
        raise ConfigError(f"`snr_db` must be a list of values from {LOWEST_SNR:g} to {HIGHEST_SNR:g} dB, not {what}.")
    if len(set(config.snr_db)) < len(config.snr_db):
        raise ConfigError(f"`snr_db` has a ratio twice: {', '.join(f'{snr:g}' for snr in config.snr_db)}.")
    for key, least in (("seeds", 1), ("bootstrap", 100), ("timing_rounds", 0), ("workers", 0)):
        if getattr(config, key) < least:
            raise ConfigError(f"`{key}` must be at least {least}, not {getattr(config, key)}.")
    try:
        check_backend(config.backend)
    except ValueError as error:
        raise ConfigError(f"`backend`: {error}") from error
    _check_methods(config)


def _check_methods(config: ExperimentConfig) -> None:
    if not config.methods:
        raise ConfigError("There is no method. Add --bundle NAME=DIR, or [[methods]] in the config.")
    names = [method.name for method in config.methods]
    for method in config.methods:
        if not method.name or method.name in _RESERVED:
            raise ConfigError(f"A method needs a name that is not {' or '.join(_RESERVED)}; got {method.name!r}.")
        if bool(method.bundle) == bool(method.config):
            raise ConfigError(f"The method {method.name!r} needs either a `bundle` or a `config` of a training run.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"Two methods have the name {twice[0]!r}.")
    if config.reference not in names:
        raise ConfigError(f"`oracle` is {config.oracle!r}, but the methods are {', '.join(names)}.")
    _check_groups(config, names)


def _check_groups(config: ExperimentConfig, names: Sequence[str]) -> None:
    taken = [group for group in config.groups if group in (*names, *_RESERVED)]
    if taken:
        raise ConfigError(f"The group {taken[0]!r} has the name of a method. Rename one of them.")
    allowed = (*names, *config.groups)
    unknown = [name for name in config.choose if name not in allowed]
    if unknown:
        raise ConfigError(f"`choose` lists {unknown[0]!r}, but methods and groups are {', '.join(allowed)}.")
    if config.choose and len(set(config.choose)) < max(2, len(config.choose)):
        raise ConfigError("`choose` must list at least two methods or groups, without repetition.")
