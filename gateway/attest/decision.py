"""A person's decision on leaves of a gateway: a C2SP signed note, in words that he has read before he signed.

    wattseal-decision/v1
    ledger wattseal-ledger/acme
    gateway gw1
    leaves 100 200
    readmit
    made 2026-11-22T10:29:04.123456Z
    by wattseal-officer/jane
    reason the firmware was updated by hand, ticket 4711

Leaves 100 to 199. Normative form: docs/log.md, section 1, "decision".
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.errors import TrustError
from gateway.tlog.lines import split_note
from gateway.tlog.note import Signer, Verifier, open_note, sign_note

DECISION = "wattseal-decision/v1"
MAX_REASON = 400
_READMIT, _QUARANTINE = "readmit", "quarantine"
_NUMBER = r"0|[1-9][0-9]{0,17}"
_TEXT = re.compile(
    rf"{re.escape(DECISION)}\nledger (?P<ledger>\S{{1,127}})\ngateway (?P<gateway>[a-z0-9][a-z0-9_-]{{0,62}})\n"
    rf"leaves (?P<first>{_NUMBER}) (?P<stop>{_NUMBER})\n(?P<what>{_READMIT}|{_QUARANTINE})\n"
    r"made (?P<made>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)\n"
    rf"by (?P<by>\S{{1,127}})\nreason (?P<reason>[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_REASON}}})\n",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a decision's note says of leaves [first, stop). made_ns: whole microseconds. by: the key's name.

    Raises TrustError for what no note can say.
    """

    ledger: str
    gateway: str
    first: int
    stop: int
    admit: bool
    made_ns: int
    by: str
    reason: str

    def __post_init__(self) -> None:
        """Refuse what cannot be written down."""
        if self.first >= self.stop:
            raise TrustError(f"decision: got leaves {self.first}..{self.stop - 1}, want at least one")
        if self.made_ns % 1000 or _TEXT.fullmatch(self.text) is None:
            raise TrustError("decision: want names, and a reason of one line")

    @property
    def text(self) -> str:
        """The note's text."""
        made = (_EPOCH + timedelta(microseconds=self.made_ns // 1000)).strftime(_FORM)
        return (
            f"{DECISION}\nledger {self.ledger}\ngateway {self.gateway}\nleaves {self.first} {self.stop}\n"
            f"{_READMIT if self.admit else _QUARANTINE}\nmade {made}\nby {self.by}\nreason {self.reason}\n"
        )


def sign_ruling(ruling: Ruling, signer: Signer) -> bytes:
    """Return the signed note. Raises TrustError unless the ruling is by this key's name."""
    if ruling.by != signer.name:
        raise TrustError(f"decision: got one by {ruling.by}, want one by {signer.name}")
    return sign_note(ruling.text, [signer])


def read_ruling(note: bytes) -> Ruling:
    """Return what a note says, without a look at its signature but for its name. Raises TrustError."""
    text, lines = split_note(note)
    found = _ruling(text)
    if [line.name for line in lines] != [found.by]:
        raise TrustError(f"decision: want one signature, by {found.by}")
    return found


def verify_ruling(note: bytes, officers: Iterable[Verifier], *, ledger: str) -> Ruling:
    """Return what a note says that one of these officers has signed, for this ledger. Raises TrustError."""
    ruling = read_ruling(note)
    named = [key for key in officers if key.name == ruling.by]
    if not named:
        raise TrustError(f"decision: {ruling.by[:64]} is no officer")
    open_note(note, named)
    if ruling.ledger != ledger:
        raise TrustError(f"decision: it is for {ruling.ledger[:80]}, want one for {ledger}")
    return ruling


def _ruling(text: str) -> Ruling:
    found = _TEXT.fullmatch(text)
    if found is None:
        raise TrustError("decision: the note's text does not fit docs/log.md")
    try:
        made = datetime.strptime(found["made"], _FORM).replace(tzinfo=UTC) - _EPOCH
    except ValueError as e:
        raise TrustError(f"decision: made: got {found['made']}, want a time") from e
    if made < timedelta(0):
        raise TrustError(f"decision: made: got {found['made']}, want a time after 1970")
    return Ruling(
        ledger=found["ledger"],
        gateway=found["gateway"],
        first=int(found["first"]),
        stop=int(found["stop"]),
        admit=found["what"] == _READMIT,
        made_ns=made // timedelta(microseconds=1) * 1000,
        by=found["by"],
        reason=found["reason"],
    )
