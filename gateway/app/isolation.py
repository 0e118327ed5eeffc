"""What a process gives up at its start, so that a break-in gains less."""

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1


def drop_network() -> bool:
    """Move this process into an empty network namespace; return whether the kernel allowed it.

    As an ordinary user this takes a user namespace of its own (Debian allows it), in which the
    process keeps its user id. Must be called before any thread starts.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    # Where these are denied (AppArmor from Ubuntu 23.10 on), the ids read as nobody's; the network is gone all the
    # same, and files open by the ids that the process really has.
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def die_with_us() -> None:
    """Run in a child before its program: the kernel ends it (prctl(2)) when we end, however we do."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def network_interfaces() -> list[str]:
    """Return the names of the interfaces that this process can see, the loopback aside."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return [name for line in lines if (name := line.partition(":")[0].strip()) != "lo"]
