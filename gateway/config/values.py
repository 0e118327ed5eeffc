"""What single values of our files may be: patterns, ranges, and what a message says of them."""

from typing import Annotated

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z", description="lower-case letters, digits, - and _")]
GatewayName = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z", description="lower-case letters, digits and -")
]
Seconds = Annotated[float, Meta(ge=0.001, le=86_400)]

_HOST = r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,30}"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"  # 1..65535
_DECIMAL = r"-?[0-9]{1,14}(\.[0-9]{1,14})?\Z"

HostPort = Annotated[str, Meta(pattern=rf"^{_HOST}:{_PORT}\Z", description="host:port")]
Url = Annotated[
    str,
    Meta(
        pattern=rf"^(tcp|rtu\+tcp)://{_HOST}:{_PORT}\Z|^serial:///[!-~]{{1,200}}\Z"
        rf"|^opc\.tcp://{_HOST}:{_PORT}(/[!-~]{{0,200}})?\Z|^bacnet:[0-9]{{1,7}}\Z|^agent:[a-z0-9][a-z0-9-]{{0,31}}\Z",
        description="tcp://host:port, rtu+tcp://host:port, serial:///dev/..., opc.tcp://host:port/path, "
        "bacnet:<instance> or agent:<id>",
    ),
]

BacnetAddress = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}(:[0-9]{1,5})?\Z",
        description="an address such as 192.0.2.5/24:47808",
    ),
]
Instance = Annotated[int, Meta(ge=0, le=4_194_302)]

# What stands in a schema leaf: docs/log.md forbids control characters there, and a leaf has room for so much.
Text = Annotated[
    str,
    Meta(pattern=r"^[^\x00-\x1f\x7f]{0,60}\Z", description="text of at most 60 characters, none a control character"),
]
Zone = Annotated[
    str,
    Meta(pattern=r"^[^\x00-\x1f\x7f]{1,60}\Z", description="text of 1 to 60 characters, none a control character"),
]
Counters = Annotated[tuple[str, ...], Meta(min_length=1, max_length=100, description="a list of 1 to 100 counters")]

# TOML's own numbers are binary, and 0.1 is not: a factor that figures rest on is text.
Scale = Annotated[
    str, Meta(pattern=rf"^(?=.*[1-9]){_DECIMAL}", description='a decimal number in quotes, such as "0.01"; never 0')
]
Offset = Annotated[str, Meta(pattern=rf"^{_DECIMAL}", description='a decimal number in quotes, such as "-40"')]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a file: unknown keys are refused."""
