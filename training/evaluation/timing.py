"""What an embedding costs: milliseconds for a clip of 10 s on one CPU thread."""

import hashlib
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from service.audio.decode import Samples
from service.encoder.processor import processor_name
from training.evaluation.views import BundleView

SECONDS = 10.0
_WARM_UP = 2

SPEED = "ms per 10 s clip, one CPU thread"  # as a figure of it is called


def milliseconds(bundles: Mapping[str, BundleView], rounds: int, kept: Path) -> dict[str, float]:
    """Median time of each bundle; bundles take turns, so that other load hits all alike.

    Args:
        bundles: by name.
        rounds: timed clips per bundle.
        kept: folder where the times of these bundles on this processor are kept.
    """
    hashes = {name: view.encoder.manifest.model_sha256 for name, view in bundles.items()}
    about = json.dumps([sorted(set(hashes.values())), rounds, processor_name()])
    path = kept / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"
    if path.is_file():
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    else:
        found = _measure({hashes[name]: view for name, view in bundles.items()}, rounds)
        kept.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(found), encoding="utf-8")
        temporary.replace(path)
    return {name: found[sha256] for name, sha256 in hashes.items()}


def _measure(bundles: Mapping[str, BundleView], rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {name: [] for name in bundles}
    for turn in range(_WARM_UP + rounds):
        for name, view in bundles.items():
            samples: Samples = (0.1 * rng.standard_normal(round(SECONDS * view.encoder.sample_rate))).astype(np.float32)
            begin = time.perf_counter()
            view.embed(samples)
            if turn >= _WARM_UP:
                spent[name].append(1_000 * (time.perf_counter() - begin))
    return {name: statistics.median(times) for name, times in spent.items()}
