"""Tests of the running system: real processes, a real broker, the simulated plant."""
