"""`make simulate`: telemetry of an invented fleet, or recorded, for a running system."""
