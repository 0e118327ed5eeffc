"""The simulated factory, the rigs and the benchmarks."""
