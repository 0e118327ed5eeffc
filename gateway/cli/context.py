"""`wattseal context-token`: lets a system of the DMZ say what a line makes."""

import json
from pathlib import Path

import click


@click.command("context-token")
@click.argument("system")
@click.option(
    "--tokens", type=click.Path(path_type=Path, dir_okay=False), help="The ledger's tokens file: the line is added."
)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def context_token(system: str, tokens: Path | None, *, as_json: bool) -> None:
    """Make a token with which a system, such as an MES, may say what a line makes. It is shown once.

    \b
    Example: wattseal context-token mes --tokens tokens.txt
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.tokens import add_token, make_token

    token, line = make_token(system)
    if tokens is not None:
        add_token(tokens, line)
    if as_json:
        click.echo(json.dumps({"system": system, "token": token, "line": line}))
        return
    click.echo(token)
    said = f"The token of {system}: give it to that system; it is shown this once. "
    said += f"Line for [context] tokens: {line}" if tokens is None else f"{tokens}: line added."
    click.echo(said, err=True)


COMMANDS = (context_token,)
