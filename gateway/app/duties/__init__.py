"""What the ledger does beside taking messages: one module a duty."""

from structlog.typing import FilteringBoundLogger

from gateway.app.duties.alerting import Alerting
from gateway.app.duties.attesting import Attesting
from gateway.app.duties.closing import Closing
from gateway.app.duties.documents import Documents
from gateway.app.duties.duty import Desk, Duty, Listener
from gateway.app.duties.feeds import feeds_of
from gateway.app.duties.intake import intake_of
from gateway.app.duties.tables import Tables
from gateway.config import LedgerConfig

__all__ = ["Desk", "Duty", "Listener", "duties_of"]


def duties_of(config: LedgerConfig, desk: Desk, log: FilteringBoundLogger) -> list[Duty]:
    """Return the duties that a configuration asks for, in the order in which they look."""
    return [
        Attesting(config, desk, log),  # the first: the others look at figures
        Tables(config.ledger.tables, desk, log),
        Documents(config.ledger, desk, log),
        *feeds_of(config, desk, log),
        *intake_of(config.context, desk, log),
        Closing(desk, log),
        Alerting(config.ledger.state, desk, log),
    ]
