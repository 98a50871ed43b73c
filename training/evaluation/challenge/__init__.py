"""Evaluates bundles on trees of DCASE Task 2 as the official evaluators do."""
