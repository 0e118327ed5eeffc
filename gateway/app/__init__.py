"""The processes: wiring and supervision only."""
