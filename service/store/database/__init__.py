"""Open the database and run transactions."""
