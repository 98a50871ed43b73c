"""Run work that outlasts a request."""
