"""Measures the time of an embedding: milliseconds for a clip of 10 s on one CPU thread."""

import hashlib
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from offkey import atomic
from service.audio.decode import Samples
from service.encoder.processor import processor_name
from training.evaluation.embedders import BundleEmbedder

SECONDS = 10.0
_WARM_UP = 2

SPEED = "ms per 10 s clip, one CPU thread"  # name of the figure


def milliseconds(bundles: Mapping[str, BundleEmbedder], rounds: int, cache: Path) -> dict[str, float]:
    """Measure the median time of each bundle; bundles alternate, so that other load affects all equally.

    Args:
        bundles: bundles by name.
        rounds: number of timed clips per bundle.
        cache: folder of cached times, by bundles and processor.
    """
    hashes = {name: embedder.encoder.manifest.model_sha256 for name, embedder in bundles.items()}
    about = json.dumps([sorted(set(hashes.values())), rounds, processor_name()])
    path = cache / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"
    if path.is_file():
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    else:
        found = _measure({hashes[name]: embedder for name, embedder in bundles.items()}, rounds)
        cache.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(found))
    return {name: found[sha256] for name, sha256 in hashes.items()}


def _measure(bundles: Mapping[str, BundleEmbedder], rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {name: [] for name in bundles}
    for round_ in range(_WARM_UP + rounds):
        for name, embedder in bundles.items():
            length = round(SECONDS * embedder.encoder.sample_rate)
            samples: Samples = (0.1 * rng.standard_normal(length)).astype(np.float32)
            begin = time.perf_counter()
            embedder.embed(samples)
            if round_ >= _WARM_UP:
                spent[name].append(1_000 * (time.perf_counter() - begin))
    return {name: statistics.median(times) for name, times in spent.items()}
