"""What a machine, a memory bank, a score and a threshold are. Pure numpy; knows no HTTP, no SQL, no ONNX."""
