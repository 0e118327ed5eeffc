"""Commands for device templates: devices, lint."""

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gateway.app.catalogue import Model

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")


@click.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Those of the simulated plant too.")
@_JSON
def devices(name: str | None, *, everything: bool, as_json: bool) -> None:
    """List the meters that the gateway knows, or show all that is known of one.

    \b
    Example: wattseal devices
             wattseal devices eastron-sdm630
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.catalogue import model, models

    if name is not None:
        found = _known(model(name))
        click.echo(json.dumps(found) if as_json else _shown(found))
        return
    listed = [_known(entry) for entry in models() if everything or not entry.simulated]
    if as_json:
        click.echo(json.dumps({"devices": listed}))
        return
    width = max(len(entry["name"]) for entry in listed)
    wide = max(len(entry["title"]) for entry in listed)
    for entry in listed:
        mark = "verified" if entry["verified"] else "UNVERIFIED"
        click.echo(f"{entry['name']:<{width}}  {entry['title']:<{wide}}  {mark:<10}  votes {entry['votes']}")
    bad = sum(not entry["verified"] for entry in listed)
    click.echo(f"{len(listed)} models, {bad} UNVERIFIED: compare those with the maker's manual, and with the display.")


def _known(model: "Model") -> dict[str, Any]:
    template = model.template
    points = [
        {"name": name, "unit": point.unit, "kind": str(point.kind)}
        | {key: getattr(point, key) for key in ("counter", "direction") if getattr(point, key, None) is not None}
        for name, point in template.points.items()
    ]
    return {
        "name": model.name,
        "title": template.title,
        "protocol": template.protocol,
        "verified": template.verified,
        "votes": template.votes,
        "sources": list(template.sources),
        "points": points,
        "notes": [line.lstrip("# ") for line in model.text.split("\ntitle", 1)[0].splitlines() if line.startswith("#")],
    }


def _shown(found: dict[str, Any]) -> str:
    mark = "verified" if found["verified"] else "UNVERIFIED: compare it with the maker's manual, and with the display"
    lines = [f"{found['name']}: {found['title']} ({found['protocol']})", f"  {mark}; {found['votes']} votes"]
    lines += [f"  source: {source}" for source in found["sources"]]
    lines += [f"  {note}" for note in found["notes"]]
    width = max(len(point["name"]) for point in found["points"])
    for point in found["points"]:
        more = " ".join(str(point[key]) for key in ("direction", "counter") if key in point)
        lines.append(f"  {point['name']:<{width}}  {point['unit']:<4}  {point['kind']:<7}  {more}".rstrip())
    return "\n".join(lines)


@click.command()
@click.argument("target", metavar="TEMPLATE|FILE")
@_JSON
def lint(target: str, *, as_json: bool) -> int:
    """Look for mistakes in a Modbus device template; exit 1 when there is one.

    \b
    Example: wattseal lint eastron-sdm630
             wattseal lint my-meter.toml
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.catalogue import model_or_file
    from gateway.config import ModbusTemplate
    from gateway.config.lint import Level
    from gateway.config.lint import lint as look

    model = model_or_file(target)
    found = look(model.template, model.text) if isinstance(model.template, ModbusTemplate) else ()
    wrong = [finding for finding in found if finding.level is Level.ERROR]
    if as_json:
        rows = [
            {"level": f.level, "rule": f.rule, "text": f.text, "points": list(f.points), "lines": list(f.lines)}
            for f in found
        ]
        click.echo(json.dumps({"template": model.name, "ok": not wrong, "findings": rows}))
        return 1 if wrong else 0
    for f in found:
        lines = " and ".join(str(line) for line in f.lines)
        click.echo(f"{target}{f':{lines}' if lines else ''}: {f.level}: {f.text}")
    doubts = sum(finding.level is Level.DOUBT for finding in found)
    click.echo(f"{target}: {'FAILED' if wrong else 'OK'}: {len(wrong)} errors, {doubts} doubts")
    return 1 if wrong else 0


COMMANDS = (devices, lint)
