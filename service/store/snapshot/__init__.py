"""Write, check and restore snapshots of the store."""
