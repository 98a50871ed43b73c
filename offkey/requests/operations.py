"""Describe the calls that operators and their tools make."""

from offkey.requests.request import Request
from offkey.schemas import Health, Info


def info() -> Request[Info]:
    """Return the version, the model bundle and the limits of the service."""
    return Request("GET", "/info", Info.model_validate_json)


def metrics() -> Request[str]:
    """Return the metrics in Prometheus' text format."""
    return Request("GET", "/metrics", bytes.decode)


def livez() -> Request[Health]:
    """Check that the process of the service answers."""
    return Request("GET", "/livez", Health.model_validate_json)


def readyz() -> Request[Health]:
    """Check that the service can serve requests."""
    return Request("GET", "/readyz", Health.model_validate_json)
