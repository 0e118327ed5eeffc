"""The sections of reference.toml: which releases of a device's software a verifier takes for good.

What stands deeper than a section's own keys is checked in gateway.attest.references, which can say where.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.config.values import Name, Section

_Instant = Annotated[datetime, Meta(tz=True, description="a time with its offset, such as 2026-11-01T00:00:00Z")]
_Said = Annotated[
    str,
    Meta(pattern=r"^[^\x00-\x1f\x7f]{1,60}\Z", description="text of 1 to 60 characters, none a control character"),
]
_Version = Annotated[
    str,
    Meta(pattern=r"^[^\x00-\x1f\x7f]{0,60}\Z", description="text of at most 60 characters, none a control character"),
]


class EventSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[release.event]]`: what the firmware's event log must say of one PCR.

    rule: required, one of the digests is there; forbidden, none is; only, no other is.
    type: of the event, as required alone may ask. about: what a person reads when the rule is broken.
    """

    pcr: Annotated[int, Meta(ge=0, le=23)]
    rule: Literal["required", "forbidden", "only"]
    digests: Any
    type: Annotated[str, Meta(pattern=r"^EV_[A-Z0-9_]{1,60}\Z", description="an event's type, EV_...")] | None = None
    about: _Said = "event"


class ReleaseSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[release]]`: one release for one model, and how to know it.

    version: what the device must call its software; "" for anything. model: as in the device's certificate.
    from_, until: when it is good; until is left out for good until further notice.
    pcrs: by index, the value or the values that each may have. tls: backends that may hold the client key; any, if
    empty.
    counters: by NV index, the least value. resets: how often the TPM may have been started, at most.
    """

    name: Name
    version: _Version = ""
    model: _Said
    from_: _Instant = msgspec.field(name="from")
    until: _Instant | None = None
    pcrs: dict[str, Any]
    event: Any = ()
    tls: Annotated[tuple[Name, ...], Meta(max_length=16)] = ()
    counters: dict[str, Any] = msgspec.field(default_factory=dict)
    resets: Annotated[int, Meta(ge=1, le=2**32 - 1)] | None = None
