"""Wraps an encoder that exists as an ONNX file into a model bundle that the service serves."""
