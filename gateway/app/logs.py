"""Log lines: JSON on stderr, one a transition, ids and no secrets."""

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def start_logs(process: str) -> "FilteringBoundLogger":
    """Set up the log of this process and return it. Foreign libraries may only complain."""
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # an exception that nobody fetched is a bug of ours
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    log: FilteringBoundLogger = structlog.get_logger(process=process)
    return log
