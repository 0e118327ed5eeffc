"""An operator's file of factors: read again when it has changed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from gateway.carbon.grid.factors import parse_factors
from gateway.carbon.scopes.fueltable import parse_fuels
from gateway.config.ledger import LedgerSection
from gateway.errors import ConfigError
from gateway.model import Factor


class FactorParser(Protocol):
    """Reads a file's content: of grid factors, or of fuels."""

    def __call__(self, content: str, *, name: str) -> Sequence[Factor]:
        """Return the factors. Raises ConfigError."""
        ...


class FactorFile:
    """One file, looked at as often as wanted.

    parse: of its content. say: told what is wrong with it, once for each mistake; the factors in force stay as they
    are.
    """

    def __init__(self, path: Path, *, parse: FactorParser, say: Callable[[str], None]) -> None:
        self._path, self._say, self._parse = path, say, parse
        self._seen = (0, 0)
        self._wrong = ""

    def news(self, choose: Callable[[Sequence[Factor]], Sequence[Factor]]) -> Sequence[Factor]:
        """Return what choose takes of the file, if it has changed since the last look; else nothing.

        choose: may raise ConfigError, as for a file that is wrong.
        """
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_size) == self._seen:
                return ()
            self._seen = (stat.st_mtime_ns, stat.st_size)
            chosen = choose(self._parse(self._path.read_text(encoding="utf-8"), name=self._path.name))
        except (OSError, UnicodeDecodeError, ConfigError) as e:
            if str(e) != self._wrong:
                self._say(str(e))
            self._wrong = str(e)
            return ()
        self._wrong = ""
        return chosen


def factor_files(section: LedgerSection, *, say: Callable[[str], None]) -> Sequence[FactorFile]:
    """Return the files that ledger.toml names: of grid factors, and of fuels where there is one."""
    files = [FactorFile(section.factors, parse=parse_factors, say=say)]
    if section.fuel_factors is not None:
        files.append(FactorFile(section.fuel_factors, parse=parse_fuels, say=say))
    return files
