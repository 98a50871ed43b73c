"""Encoders by name. A built-in encoder needs one file with a subclass of `Encoder`, and one line in `registry`."""

from training.encoders.ast import AST
from training.encoders.base import CheckpointError, Encoder, FrontEnd
from training.encoders.beats import BEATs
from training.encoders.eat import EAT, SSLAM
from training.encoders.efficientat import EfficientAT, EfficientAT7k, EfficientAT16k
from training.encoders.registry import ENCODERS, encoder_reference, find_encoder, is_path

__all__ = [
    "AST",
    "EAT",
    "ENCODERS",
    "SSLAM",
    "BEATs",
    "CheckpointError",
    "EfficientAT",
    "EfficientAT7k",
    "EfficientAT16k",
    "Encoder",
    "FrontEnd",
    "encoder_reference",
    "find_encoder",
    "is_path",
]
