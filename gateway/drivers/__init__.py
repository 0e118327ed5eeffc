"""Field protocols: each a Driver that reads one device, or a Follower that also tells what changes."""

from gateway.drivers.driver import Driver, Follower, Poll, Tell

__all__ = ["Driver", "Follower", "Poll", "Tell"]
