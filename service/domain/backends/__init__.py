"""The ways of measuring how far a window is from a bank. Each is trained on the bank alone."""

from collections.abc import Mapping
from difflib import get_close_matches

from service.domain.backends.base import Backend
from service.domain.backends.covariance import Mahalanobis, PcaResidual
from service.domain.backends.density import DensityDifference, DensityRatio
from service.domain.backends.neighbors import Nearest, NearestMean

DEFAULT_BACKEND = "mahalanobis"

# By name; of several the smallest normalized measure counts: anomalous is what is so to each of them.
BACKENDS: Mapping[str, tuple[type[Backend], ...]] = {
    "nearest": (Nearest,),
    "nearest-mean": (NearestMean,),
    "density-ratio": (DensityRatio,),
    "density-difference": (DensityDifference,),
    "mahalanobis": (Mahalanobis,),
    "pca-residual": (PcaResidual,),
    "fusion": (Nearest, DensityRatio, Mahalanobis, PcaResidual),
}


def check_backend(name: str) -> str:
    """Return `name` unchanged. Raises `ValueError`, which names the nearest, if there is no such backend."""
    if name not in BACKENDS:
        near = get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean {near[0]}? There are" if near else "there are"
        raise ValueError(f"{name!r} is no backend; {hint} {', '.join(BACKENDS)}.")
    return name
