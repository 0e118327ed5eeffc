"""Configuration texts for Mosquitto, as development uses it and as the example for a plant.

The broker is trusted with delivery alone. Still it keeps gateways off each other's topics: a client's
common name is its user name, and that name is the topic level it may use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.codec.agents import MAX_FRAME
from gateway.codec.frames import MAX_LOG_MESSAGE
from gateway.errors import ConfigError
from gateway.north.pki import NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFiles:
    """What the broker's configuration names. All paths are absolute when the broker starts elsewhere."""

    ca: Path
    cert: Path
    key: Path
    crl: Path
    acl: Path

    @classmethod
    def of(cls, pki: Path, acl: Path) -> "BrokerFiles":
        """Return the files as make_dev_ca names them."""
        return cls(ca=pki / "ca.pem", cert=pki / "broker.pem", key=pki / "broker.key", crl=pki / "crl.pem", acl=acl)


def acl_text(*, ledger: str, namespace: str = "", verifier: str = "", enrolling: Sequence[str] = ()) -> str:
    """Return the access list: a gateway has its own topics, a system its own one, ledger and verifier the other side.

    namespace: a filter of topics that every client may write and the ledger read, such as `umh/v1/#`; "" for none.
    verifier: the user of the attestation service; "" for none. enrolling: gateways whose user `enrol_<gateway>` may
    ask the verifier for a certificate, and for nothing else.
    Mosquitto 2.0 grants any subscription and filters what it delivers, so a foreign topic is silent rather
    than refused. Raises ConfigError for a name that could reach further.
    """
    for what, name in (("ledger", ledger), *(("enrolling", one) for one in enrolling)):
        if not NAME.match(name):
            raise ConfigError(f"{what}: got {name!r}, want lower-case letters, digits and -")
    if verifier and (not NAME.match(verifier) or verifier == ledger):
        raise ConfigError(f"verifier: got {verifier!r}, want lower-case letters, digits and -, and not the ledger's")
    if enrolling and not verifier:
        raise ConfigError("enrolling: got gateways and no verifier, want the verifier that answers them")
    if any(ord(c) < 32 for c in namespace) or namespace.startswith(("wattseal/", "#", "+", "$")):
        raise ConfigError(f"namespace: got {namespace!r}, want a filter whose first level is a plain name of its own")
    return (
        "# Who may do what. %u is the common name of the client's certificate.\n"
        "# Without a line for it, a topic is closed: also $SYS.\n"
        "pattern write wattseal/v1/%u/log\n"
        "pattern read wattseal/v1/%u/receipt\n"
        "pattern read wattseal/v1/%u/challenge\n"
        "pattern write wattseal/v1/%u/evidence\n"
        "pattern write wattseal/v1/context/%u\n" + (f"pattern write {namespace}\n" if namespace else "") + "\n"
        f"user {ledger}\n"
        "topic read wattseal/v1/+/log\n"
        "topic write wattseal/v1/+/receipt\n"
        "topic read wattseal/v1/+/result\n"
        "topic read wattseal/v1/context/+\n"
        + (f"topic read {namespace}\n" if namespace else "")
        + (_verifier_text(verifier, enrolling) if verifier else "")
    )


def _verifier_text(verifier: str, enrolling: Sequence[str]) -> str:
    """Return the lines of the attestation service, and of those who ask it for a certificate."""
    asking = "".join(
        f"\nuser enrol_{gateway}\n"
        f"topic write wattseal/v1/enrol/{gateway}/request\n"
        f"topic read wattseal/v1/enrol/{gateway}/reply\n"
        for gateway in enrolling
    )
    return (
        "\n"
        f"user {verifier}\n"
        "topic write wattseal/v1/+/challenge\n"
        "topic read wattseal/v1/+/evidence\n"
        "topic write wattseal/v1/+/result\n"
        "topic read wattseal/v1/enrol/+/request\n"
        "topic write wattseal/v1/enrol/+/reply\n" + asking
    )


def agents_acl_text(*, collect: str) -> str:
    """Return the access list of the broker in the OT zone: an agent may only send, collect may only hear.

    Raises ConfigError for a name that could reach further.
    """
    if not NAME.match(collect):
        raise ConfigError(f"collect: got {collect!r}, want lower-case letters, digits and -")
    return (
        "# Who may do what. %u is the common name of the client's certificate: an agent's id.\n"
        "# Without a line for it, a topic is closed: also $SYS, and to agents all that others send.\n"
        "pattern write wattseal/v1/agents/%u/frames\n"
        "\n"
        f"user {collect}\n"
        "topic read wattseal/v1/agents/+/frames\n"
        f"topic deny wattseal/v1/agents/{collect}/frames\n"
    )


def conf_text(
    files: BrokerFiles,
    *,
    port: int = 8883,
    bind: str = "127.0.0.1",
    user: str = "mosquitto",
    for_agents: bool = False,
) -> str:
    """Return mosquitto.conf: for the DMZ, or for the agents in the OT zone.

    user: whom the broker becomes when root starts it; it must be able to read the key.
    for_agents: the firmware of an ESP32 may speak TLS 1.2 alone, and sends small messages.
    Raises ConfigError for a path or a word that would break the file's lines.
    """
    words = [str(path) for path in (files.ca, files.cert, files.key, files.crl, files.acl)]
    for word in (*words, bind, user):
        if not word or word != word.strip() or any(ord(c) < 32 for c in word):
            raise ConfigError(f"mosquitto.conf: got {word!r}, want a text without control characters and outer spaces")
    ca, cert, key, crl, acl = words
    most = MAX_FRAME if for_agents else MAX_LOG_MESSAGE
    tls = "tlsv1.2" if for_agents else "tlsv1.3"
    limit = "max_connections 1024\n" if for_agents else ""  # a fleet may be larger: what counts are open files
    return (
        f"# Only this listener, only TLS from {tls[4:]}, only clients with a certificate of this authority.\n"
        "per_listener_settings false\n"
        f"listener {port} {bind}\n"
        f"cafile {ca}\n"
        f"certfile {cert}\n"
        f"keyfile {key}\n"
        f"crlfile {crl}\n"
        f"tls_version {tls}\n"
        "require_certificate true\n"
        "use_identity_as_username true\n"
        "# Or a client could throw another one out by taking its client id.\n"
        "use_username_as_clientid true\n"
        f"{limit}"
        "\n"
        f"user {user}\n"
        "allow_anonymous false\n"
        f"acl_file {acl}\n"
        "\n"
        "# Nothing is kept: what a gateway has no receipt for, it sends again.\n"
        "persistence false\n"
        "retain_available false\n"
        "sys_interval 0\n"
        "\n"
        "# What does not fit a slow client's queue is dropped; a gateway sends it again.\n"
        f"message_size_limit {most}\n"
        f"max_packet_size {2 * most}\n"
        "max_inflight_messages 64\n"
        "max_queued_messages 1000\n"
        f"max_queued_bytes {64 * MAX_LOG_MESSAGE}\n"
        "max_keepalive 60\n"
        "set_tcp_nodelay true\n"
        "\n"
        "log_dest stderr\n"
        "log_type error\n"
        "log_type warning\n"
        "log_type notice\n"
        "log_type information\n"
        "connection_messages true\n"
        "log_timestamp_format %Y-%m-%dT%H:%M:%S\n"
    )
