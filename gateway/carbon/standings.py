"""On which leaves of a gateway figures may rest: what the ledger has sealed of its state, and what people decided.

From its `first` leaf on each standing holds until the next one's; the newest decision on a leaf wins over all of them.
A gateway of which nothing was ever sealed asks for no attestation, and its leaves count, as they do where the ledger
says UNATTESTED: but for those of an epoch that a TPM has bound, on which a verifier has the word. Where its own log
starts another epoch, its leaves wait for a result of that epoch, whether that is sealed yet or not: so what was good of
one start of a device never covers the next. The other way round it may: a result reaches back over earlier epochs of
the same start, which results call its boot, since PCRs are never undone within one.

The ledger and whoever verifies an export offline refuse the same: a good result that reaches back over FAILED leaves or
another boot's, a bad one that reaches over another boot's, and a decision that is not newer than those on the same
leaves (a replay).
"""

from collections.abc import Iterator, Sequence

from gateway.attest.decision import Ruling, read_ruling
from gateway.attest.epoch import UNATTESTED
from gateway.carbon.reliance import NO_RESULT, Placed, Reliance, check_next
from gateway.errors import TrustError
from gateway.model import Decision, Standing, State


class Standings:
    """All gateways' standings and decisions, added in the order of the ledger's log; epochs as gateways start them."""

    def __init__(self) -> None:
        self._gateways: dict[str, Reliance] = {}

    def add(self, index: int, standing: Standing) -> None:
        """Put a standing in force from its `first` leaf on. index: of its leaf in the ledger's log.

        Raises TrustError for one that does not follow the one before it, or reaches back over what it must not.
        """
        held = self._gateways.setdefault(standing.gateway, Reliance())
        check_next(held, standing)
        while held.held and held.held[-1].first >= standing.first:
            held.held.pop()
        held.held.append(standing)
        if standing.state is State.TRUSTED:
            held.found(standing)
        held.sealed.append((index, standing))
        held.is_old = True

    def decide(self, index: int, decision: Decision) -> None:
        """Put a decision in force. Raises TrustError unless its note says the same, later than all on these leaves."""
        ruling = read_ruling(decision.note)
        said = (ruling.gateway, ruling.first, ruling.stop, ruling.admit)
        if said != (decision.gateway, decision.first, decision.stop, decision.admit):
            raise TrustError("decision: the leaf says something else than its note")
        held = self._gateways.setdefault(decision.gateway, Reliance())
        self.check_ruling(ruling)
        held.decisions.append(Placed(index=index, decision=decision, ruling=ruling))
        held.is_old = True

    def check_ruling(self, ruling: Ruling) -> None:
        """Raise TrustError unless a ruling was made after all others on any of its leaves: else it is a replay."""
        for one in self.decisions(ruling.gateway):
            overlaps = one.ruling.first < ruling.stop and ruling.first < one.ruling.stop
            if overlaps and ruling.made_ns <= one.ruling.made_ns:
                raise TrustError("decision: not made after the one before it on the same leaves: replayed, or late")

    def note_epoch(self, gateway: str, index: int, epoch: int, key: str, binding: str = UNATTESTED) -> None:
        """Take an epoch leaf of a gateway's own log; in its order."""
        self._gateways.setdefault(gateway, Reliance()).note_epoch(index, epoch, key, binding)

    # ---- to read

    @property
    def gateways(self) -> Sequence[str]:
        """Those of which a standing or a decision was sealed."""
        return sorted(name for name, held in self._gateways.items() if held.sealed or held.decisions)

    def is_affirmed(self, gateway: str, index: int) -> bool:
        """Return whether figures may rest on a leaf."""
        held = self._gateways.get(gateway)
        return held is None or held.is_affirmed(index)

    def at(self, gateway: str, index: int) -> Standing | None:
        """Return the standing under which a leaf was accepted, decisions aside; None for a gateway without any."""
        held = self._gateways.get(gateway)
        return None if held is None else held.at(index)

    def alone(self, gateway: str, index: int) -> State | None:
        """Return the state that a leaf has by the ledger's word alone; None where a result or an officer says it.

        None, too, for all of a gateway that is not attested.
        """
        held = self._gateways.get(gateway)
        return None if held is None else held.alone(index)

    def is_unbound(self, gateway: str, index: int) -> bool:
        """Return whether a leaf is known to be of an epoch that no TPM has bound."""
        held = self._gateways.get(gateway)
        return held is not None and held.is_unbound(index)

    def telling(self, gateway: str, index: int) -> int | None:
        """Return the epoch leaf that tells whether a leaf may count without a result; None where none has to."""
        held = self._gateways.get(gateway)
        return None if held is None else held.telling(index)

    def decided(self, gateway: str, index: int) -> Placed | None:
        """Return the decision that holds for a leaf, None for none."""
        held = self._gateways.get(gateway)
        return None if held is None else held.decided(index)

    def newest(self, gateway: str) -> Standing | None:
        """Return the standing that was sealed last."""
        held = self._gateways.get(gateway)
        return held.sealed[-1][1] if held is not None and held.sealed else None

    def reach(self, gateway: str, epoch: int, boot: str, size: int) -> int:
        """Return from which leaf on a good result of an epoch and its boot holds, at a size of the log."""
        held = self._gateways.get(gateway, Reliance())
        first = size
        for standing in reversed(held.held):
            is_over = standing.first < first or standing.state is State.FAILED
            if is_over and not (standing.state.is_waiting and held.is_of(epoch, boot, standing.epoch)):
                break
            first = min(first, standing.first)
        return first

    def reach_failed(self, gateway: str, epoch: int, boot: str, size: int, *, since: int) -> int:
        """Return from which leaf on a bad result of an epoch and its boot holds: from `since`, if it may be.

        Leaves of another boot, and those from before the first standing, stay as they are.
        """
        held = self._gateways.get(gateway, Reliance())
        first = size
        for standing in reversed(held.held):
            if not held.is_of(epoch, boot, standing.epoch):
                break
            first = min(first, standing.first)
        return min(size, max(first, since))

    def is_of(self, gateway: str, epoch: int, boot: str, other: int) -> bool:
        """Return whether what is found of an epoch and its boot says something of another epoch."""
        held = self._gateways.get(gateway)
        return other == epoch if held is None else held.is_of(epoch, boot, other)

    def epochs(self, gateway: str) -> Sequence[tuple[int, int, str]]:
        """Return a gateway's epochs in order: leaf, number, key."""
        held = self._gateways.get(gateway)
        return () if held is None else tuple(held.epochs)

    def sealed(self, gateway: str) -> Iterator[tuple[int, Standing]]:
        """Yield all standings of a gateway as sealed, each with its leaf in the ledger's log."""
        yield from self._gateways.get(gateway, Reliance()).sealed

    def decisions(self, gateway: str) -> Sequence[Placed]:
        """Return the decisions on a gateway's leaves, in the order of the ledger's log."""
        held = self._gateways.get(gateway)
        return () if held is None else tuple(held.decisions)

    def why(self, gateway: str, index: int) -> str:
        """Return why no figure rests on a leaf; "" where one may."""
        if self.is_affirmed(gateway, index):
            return ""
        decided, standing = self.decided(gateway, index), self.at(gateway, index)
        if decided is not None:
            return f"quarantined by {decided.ruling.by}: {decided.ruling.reason}"
        if standing is None:
            return f"{State.PENDING}: {NO_RESULT}"
        return f"{standing.state}: {standing.reason}" if standing.reason else standing.state
