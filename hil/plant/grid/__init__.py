"""Replay servers of the providers of grid factors: their real request and response shapes, our own data."""
