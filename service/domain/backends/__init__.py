"""Backends: ways to measure how far a window is from a bank. Each is fitted to the bank alone."""

from difflib import get_close_matches

from service.domain.backends.base import Backend
from service.domain.backends.covariance import Mahalanobis
from service.domain.backends.density import DensityRatio
from service.domain.backends.neighbors import Nearest, NearestMean

DEFAULT_BACKEND = "mahalanobis"

# Published baselines. benchmarks/candidates.py has others that are measured and not served.
BACKENDS: dict[str, type[Backend]] = {
    "nearest": Nearest,
    "nearest-mean": NearestMean,
    "density-ratio": DensityRatio,
    "mahalanobis": Mahalanobis,
}


def check_backend(name: str) -> str:
    """Return `name` unchanged. Raises `ValueError` with the closest names if there is no such backend."""
    if name not in BACKENDS:
        close = get_close_matches(name, BACKENDS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"There is no backend {name!r}.{hint} Choose one of: {', '.join(BACKENDS)}.")
    return name
