"""`[context]` of ledger.toml: how systems of the DMZ say what a line makes."""

from pathlib import Path

from gateway.config.values import HostPort, Section


class IntakeSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[context]`: what an MES may tell us, over the broker and over HTTPS.

    mqtt: whether topics of the broker are listened to. listen: where HTTPS is served, with cert and key; tokens: a
    file with mode 0600 of the systems that may speak.
    """

    mqtt: bool = False
    listen: HostPort | None = None
    cert: Path | None = None
    key: Path | None = None
    tokens: Path | None = None
