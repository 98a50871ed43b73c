"""Composes machine-like sources and noises for training from recordings and synthetic sound."""
