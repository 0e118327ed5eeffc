"""Wattseal: a gateway that a plant can trust with its carbon figure."""
