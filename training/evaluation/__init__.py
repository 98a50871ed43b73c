"""Evaluation of encoders on machines: scores of the service, metrics of DCASE."""
