"""Reads configuration files from disk; the only place that knows where templates are."""

import re
from importlib import resources
from pathlib import Path

from gateway.config import GatewayConfig, LedgerConfig, parse_gateway, parse_ledger
from gateway.errors import ConfigError


def load_gateway(path: Path) -> GatewayConfig:
    """Return what gateway.toml says. Raises ConfigError; relative paths are taken from the file's folder."""
    return parse_file(read_text(path), path)


def parse_file(text: str, path: Path) -> GatewayConfig:
    """Return what a text says that stands in the gateway.toml at path. Raises ConfigError."""
    folder = path.resolve().parent
    return parse_gateway(
        text, name=path.name, folder=folder, template_text=lambda name: _template_text_at(folder, name)
    )


def load_ledger(path: Path) -> LedgerConfig:
    """Return what ledger.toml says. Raises ConfigError; relative paths are taken from the file's folder."""
    return parse_ledger(read_text(path), name=path.name, folder=path.resolve().parent)


def template_names() -> list[str]:
    """Return the names of all device templates of the catalogue, sorted."""
    found = resources.files("gateway").joinpath("devices").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in found if file.name.endswith(".toml"))


def template_text(name: str) -> str:
    """Return the text of a device template. Raises KeyError where there is none."""
    found = resources.files("gateway").joinpath("devices", f"{name}.toml")
    if not found.is_file():
        raise KeyError(name)
    return found.read_text(encoding="utf-8")


def annual_tables() -> list[str]:
    """Return the names of the tables of annual factors that come with the program, sorted."""
    found = resources.files("gateway").joinpath("carbon", "tables").iterdir()
    texts = {file.name: file.read_text(encoding="utf-8") for file in found if file.name.endswith(".toml")}
    holding = re.compile(r"^\[\[(factor|fuel)\]\]$", re.MULTILINE)
    return sorted(name.removesuffix(".toml") for name, text in texts.items() if holding.search(text))


def table_text(name: str) -> str:
    """Return the text of a table of annual factors. Raises KeyError where there is none."""
    if name not in annual_tables():
        raise KeyError(name)
    return resources.files("gateway").joinpath("carbon", "tables", f"{name}.toml").read_text(encoding="utf-8")


def _template_text_at(folder: Path, name: str) -> str:
    """Return the text of a site's own template in `devices`, else of one of ours. Raises KeyError, ConfigError."""
    own = folder / "devices" / f"{name}.toml"
    return read_text(own) if own.is_file() else template_text(name)


def read_text(path: Path) -> str:
    """Return a file's text. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want a readable file") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: byte {e.start} is not UTF-8, want a TOML file") from e
