"""Offline training: trains students that retain the mixture, and exports them as model bundles."""

import service  # noqa: F401  turns the telemetry of ONNX Runtime off before it is imported
