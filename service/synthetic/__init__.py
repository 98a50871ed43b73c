"""Synthetic example machines, computed from physics for the demo, the docs and the tests. No recording."""

from service.synthetic.machines import MACHINES, SyntheticMachine
from service.synthetic.tree import PlannedClip, plan_tree, write_tree

__all__ = ["MACHINES", "PlannedClip", "SyntheticMachine", "plan_tree", "write_tree"]
