"""Offkey hears when a machine sounds off: enroll healthy clips, score every clip after."""

import os

from offkey import __version__

__all__ = ["__version__"]

# ONNX Runtime since 1.29 sends usage events to its maker unless this is set before it is first imported. A
# service in a factory calls nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
