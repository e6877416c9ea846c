"""`make backfill`: months of readings from a file into a running system."""
