"""What the ledger does beside taking messages: one module a duty."""

from structlog.typing import FilteringBoundLogger

from gateway.app.duties.duty import Desk, Duty
from gateway.config import LedgerConfig

__all__ = ["Desk", "Duty", "duties_of"]


def duties_of(config: LedgerConfig, desk: Desk, log: FilteringBoundLogger) -> list[Duty]:  # noqa: ARG001
    """Return the duties that a configuration asks for, in the order in which they look."""
    return []
