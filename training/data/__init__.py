"""Clips, their samples, and the order in which training draws them."""
