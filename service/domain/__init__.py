"""Machines, memory banks, scores and thresholds in pure numpy, without HTTP, SQL or ONNX."""
