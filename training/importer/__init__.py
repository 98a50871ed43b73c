"""Wraps an encoder in an ONNX file as a model bundle that the service can serve."""
