"""Count and time what the service does."""
