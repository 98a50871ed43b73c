"""Describe the calls of the API once, for the blocking and the asynchronous client. Nothing here is sent or waits."""

from offkey.requests import clips, jobs, keys, machines, operations

__all__ = ["clips", "jobs", "keys", "machines", "operations"]
