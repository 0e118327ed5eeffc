"""What becomes of a gateway's messages at the ledger. See app/accept.py."""

from dataclasses import dataclass

from gateway.codec.leaves import Leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A message whose leaves are in the copy, durable after the next commit.

    size: of the copy after it. added: how many of its leaves were new.
    """

    size: int
    added: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A message that adds nothing: leaves before it are missing, or all of its own are here already.

    receipt: to be published again, so that the gateway goes on from its size; None when it just was.
    """

    receipt: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A leaf that the gateway has signed and nobody can read: part of the log, and of no figure."""

    index: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What one group commit made durable.

    receipt: to be published. size: what it covers.
    leaves: the new ones that can be read, each with its index. After a crash, or a full disk, leaves may be in the log
        that stood in no Committed: a projection keeps its own position, and reads what it missed from the log.
    absent: the indices of new leaves whose bodies the gateway had dropped.
    """

    receipt: bytes
    size: int
    leaves: tuple[tuple[int, Leaf], ...]
    unusable: tuple[Unusable, ...]
    absent: tuple[int, ...]
