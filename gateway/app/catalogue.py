"""The device templates that come with the gateway, and those that stand beside a gateway.toml."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from gateway.app.load import read_text, template_text
from gateway.config import Template, parse_template
from gateway.errors import ConfigError

_OURS = "wattseal-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One template: its name, its text, and what it says. simulated: a device of the simulated plant."""

    name: str
    text: str
    template: Template
    simulated: bool = False


def models() -> Sequence[Model]:
    """Return all templates of gateway/devices, by name."""
    names = sorted(
        entry.name.removesuffix(".toml")
        for entry in resources.files("gateway").joinpath("devices").iterdir()
        if entry.name.endswith(".toml")
    )
    return [model(name) for name in names]


def model(name: str) -> Model:
    """Return one template of gateway/devices. Raises ConfigError where there is none."""
    try:
        text = template_text(name) if name.replace("-", "").replace("_", "").isalnum() else ""
    except KeyError:
        text = ""
    if not text:
        raise ConfigError(f"{name}: got no such model, want one that `wattseal devices` lists")
    return Model(name=name, text=text, template=parse_template(text, name), simulated=name.startswith(_OURS))


def model_or_file(target: str) -> Model:
    """Return the template in a file, or the one of gateway/devices that has this name. Raises ConfigError."""
    path = Path(target)
    if path.suffix != ".toml" and not path.is_file():
        return model(target)
    text = read_text(path)
    return Model(name=path.stem, text=text, template=parse_template(text, path.stem))
