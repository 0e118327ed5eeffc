"""`wattseal import`: register maps of other programs become device templates."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.importing import Imported


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "seed", "telegraf", "csv", "ede"]),
    default="auto",
    show_default=True,
    help="Of the file.",
)
@click.option("--name", default="", help="What to call the template; the file's name without it.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Write here: `devices`, beside gateway.toml."
)
@click.option("--units", type=click.Path(path_type=Path, dir_okay=False), help="EDE: the file of unit texts.")
@click.option("--device", type=click.IntRange(0, 4_194_302), help="EDE: the device instance, where a file has several.")
@click.option("--dry-run", is_flag=True, help="With --out: say what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="Write over what is there.")
def import_(
    file: Path,
    form: str,
    name: str,
    out: Path | None,
    units: Path | None,
    device: int | None,
    *,
    dry_run: bool,
    force: bool,
) -> None:
    """Turn a register map into device templates: modbus_map.conf, Telegraf, CSV, BACnet EDE.

    \b
    Example: wattseal import modbus_map.conf
             wattseal import telegraf.conf --format telegraf --out devices
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.config.importing import import_map

    own_units = None if units is None else _read(units)
    found = import_map(_read(file), file=file.name, form=form, name=name, units=own_units, device=device)
    if out is None:
        click.echo("\n".join(_whole(device) for device in found), nl=False)
        return
    paths = [out / f"{device.name}.toml" for device in found]
    there = [path for path in paths if path.exists()]
    if there and not force and not dry_run:
        raise ConfigError(f"{there[0]}: got a file that is there already, want another --name, or --force")
    if not dry_run:
        _write(out, found)
    for path in paths:
        click.echo(f"# {'would write' if dry_run else 'wrote'} {path}")
    click.echo("# For gateway.toml:\n" + "\n".join(device.section for device in found), nl=False)


def _read(path: Path) -> str:
    """Return the text of a file that another program wrote, perhaps on Windows. Raises ConfigError."""
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want a readable file") from e
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: byte {e.start} is neither UTF-8 nor Windows-1252, want a text file") from e


def _whole(device: "Imported") -> str:
    """Return a device's texts as one that is a template too."""
    section = "".join(f"# {line}\n" for line in device.section.splitlines())
    return f"# devices/{device.name}.toml, and for gateway.toml:\n#\n{section}#\n{device.template}"


def _write(out: Path, found: "Sequence[Imported]") -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for device in found:
            (out / f"{device.name}.toml").write_text(device.template, encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"{out}: {e.strerror}, want a folder to write to") from e


COMMANDS = (import_,)
