"""Field protocols: each a Driver that reads one device, a Follower that also tells changes, or a Courier of frames."""

from gateway.drivers.driver import Cautioned, Courier, Driver, Follower, Hand, Poll, Tell

__all__ = ["Cautioned", "Courier", "Driver", "Follower", "Hand", "Poll", "Tell"]
