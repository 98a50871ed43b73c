"""The offline half of Offkey: trains students that retain the mixture, and exports them as model bundles."""

import service  # noqa: F401  it turns the telemetry of ONNX Runtime off, which must come before that is imported
