"""Whose energy counts, once, and by which scope: hierarchy, unmetered loads, fuels, the market-based method."""
