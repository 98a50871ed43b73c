"""`python -m training`: the training commands without the rest of `offkey`."""

from training.cli import app

app()
