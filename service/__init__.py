"""Offkey hears when a machine sounds off: enroll healthy clips, score every clip after."""

from importlib.metadata import version

__version__ = version("offkey")
