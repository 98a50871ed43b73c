"""Run the encoder of a model bundle."""
