"""One at a time, also among processes: a lock on a file, which the kernel gives back for the dead."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import GatewayError


@contextmanager
def turn(file: Path, *, wait_s: float, error: type[GatewayError]) -> Iterator[None]:
    """Hold a file, made when it is not there. Raises error where it cannot be, or the others take longer than that."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise error(f"{file}: {e.strerror}, want a folder that can be written") from e
    try:
        end_s = time.monotonic() + wait_s
        while not _is_ours(handle):
            if time.monotonic() > end_s:
                raise error(f"{file}: others have had this for {wait_s:.0f} s, want one process at a time")
            time.sleep(0.005)
        yield
    finally:
        os.close(handle)


def _is_ours(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
