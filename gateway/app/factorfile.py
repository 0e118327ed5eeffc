"""The operator's file of factors: read again when it has changed."""

from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.carbon.grid.factors import parse_factors
from gateway.errors import ConfigError
from gateway.model import Factor


class FactorFile:
    """One file, looked at as often as wanted.

    say: told what is wrong with it, once for each mistake; the factors in force stay as they are.
    """

    def __init__(self, path: Path, *, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
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
            chosen = choose(parse_factors(self._path.read_text(encoding="utf-8"), name=self._path.name))
        except (OSError, UnicodeDecodeError, ConfigError) as e:
            if str(e) != self._wrong:
                self._say(str(e))
            self._wrong = str(e)
            return ()
        self._wrong = ""
        return chosen
