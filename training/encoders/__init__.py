"""Encoders by name. A new one is one file with an `Encoder` in it, and one line here."""

from training.encoders.ast import AST
from training.encoders.base import CheckpointError, Encoder, FrontEnd
from training.encoders.beats import BEATs
from training.encoders.eat import EAT, SSLAM
from training.encoders.efficientat import EfficientAT, EfficientAT16k

ENCODERS: dict[str, type[Encoder]] = {
    encoder.name: encoder for encoder in (AST, BEATs, EAT, EfficientAT, EfficientAT16k, SSLAM)
}

__all__ = ["ENCODERS", "CheckpointError", "Encoder", "FrontEnd"]
