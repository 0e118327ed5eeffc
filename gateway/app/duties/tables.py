"""The annual tables that ledger.toml names: sealed once, like any factors."""

from collections.abc import Sequence

from structlog.typing import FilteringBoundLogger

from gateway.app.duties.duty import Desk
from gateway.app.load import annual_tables, table_text
from gateway.carbon.grid.factors import parse_factors
from gateway.carbon.grid.news import news_of
from gateway.carbon.scopes.fueltable import parse_fuels
from gateway.errors import ConfigError
from gateway.model import Factor


class Tables:
    """Offers the factors of the named tables until they are in force. Raises ConfigError for a name of none."""

    name = "tables"

    def __init__(self, names: Sequence[str], desk: Desk, log: FilteringBoundLogger) -> None:
        self._desk, self._log = desk, log
        self._open: list[Factor] = []
        for name in names:
            try:
                text = table_text(name)
            except KeyError:
                known = ", ".join(annual_tables())
                raise ConfigError(f"ledger.toml: ledger.tables: got {name!r}, want some of {known}") from None
            parse = parse_fuels if name.startswith("fuels-") else parse_factors
            self._open += parse(text, name=f"{name}.toml")

    def look(self, now_ns: int) -> None:  # noqa: ARG002 - a table has no time of its own
        """Seal what is not in force yet: at the first look that has room for it."""
        if not self._open:
            return
        try:
            self._desk.offer(self._open)
            if not news_of(self._desk.facts.factors, self._open):
                self._open = []
        except ConfigError as e:
            self._log.error("ledger.tables", why=str(e))
            self._open = []

    async def run(self) -> None:
        """Return at once: it has no sockets."""
