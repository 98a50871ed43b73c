"""The errors that a user can fix, which the command line prints without a traceback."""

from offkey.errors import OffkeyError
from service.encoder.bundle import BundleError
from training.config import ConfigError
from training.data.catalog import DataError
from training.encoders.base import CheckpointError
from training.graph import ExportError
from training.run import RunError

EXPECTED = (BundleError, CheckpointError, ConfigError, DataError, ExportError, OffkeyError, RunError)
