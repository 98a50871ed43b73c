"""Encoders measured on machines: scores as the service gives them, metrics as DCASE defines them."""
