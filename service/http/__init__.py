"""Serve the API over HTTP: routes, authentication headers, request bodies, errors."""
