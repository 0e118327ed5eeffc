"""Devices in software for tests: the rig's own."""

from hil.plant.soft_tpm import SoftAuthority, SoftDevice, challenge_for

__all__ = ["SoftAuthority", "SoftDevice", "challenge_for"]
