"""Network namespaces for a test: zones with addresses of their own, and what passes their wires."""

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 0x0003
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD


class RefusedError(Exception):
    """Raised when the kernel does not let us make namespaces."""


def ip(*arguments: str) -> None:
    """Run `ip ARGUMENTS`. Raises RefusedError."""
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError as e:
        raise RefusedError("there is no `ip` command; install the package iproute2") from e
    if done.returncode:
        raise RefusedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def in_namespace[T](path: Path, work: Callable[[], T]) -> T:
    """Return what work returns in the network namespace at path. What it opens stays in there."""
