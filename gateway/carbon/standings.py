"""On which leaves of a gateway figures may rest: what the ledger has sealed of its state, and what people decided.

From its `first` leaf on each standing holds until the next one's; the newest decision on a leaf wins over all of them.
A gateway of which nothing was ever sealed asks for no attestation, and all its leaves count. Where its own log starts
another epoch, its leaves wait for a result of that epoch, whether that is sealed yet or not: so what was good of one
start of a device never covers the next. The other way round it may: a result reaches back over earlier epochs of the
same start, which results call its boot, since PCRs are never undone within one.

The ledger and whoever verifies an export offline refuse the same: a good result that reaches back over FAILED leaves or
another boot's, a bad one that reaches over another boot's, and a decision that is not newer than those on the same
leaves (a replay).
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from gateway.attest.decision import Ruling, read_ruling
from gateway.attest.ear import boot_of
from gateway.errors import TrustError
from gateway.model import Decision, Standing, State

NEW_EPOCH = "a new epoch, not appraised yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A decision, where it is sealed in the ledger's log, and what its note says."""

    index: int
    decision: Decision
    ruling: Ruling


@dataclass(slots=True)
class _Gateway:
    """What is known of one. sealed: all standings, as sealed. held: those that still hold for a leaf, by `first`.

    boots: of epochs that were found good, by number. began: the first such epoch of each boot.
    """

    sealed: list[tuple[int, Standing]] = field(default_factory=list)
    held: list[Standing] = field(default_factory=list)
    decisions: list[Placed] = field(default_factory=list)
    epochs: list[tuple[int, int, str]] = field(default_factory=list)
    boots: dict[int, str] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    affirmed: list[bool | None] = field(default_factory=list)
    is_old: bool = True

    def is_affirmed(self, index: int) -> bool:
        if self.is_old:
            self._cut()
        found = self.affirmed[bisect_right(self.starts, index) - 1]
        if found is None:
            standing = self.at(index)
            return standing is None or standing.state.is_affirmed
        return found

    def at(self, index: int) -> Standing | None:
        """Return the standing of a leaf, decisions aside."""
        place = bisect_right(self.held, index, key=lambda standing: standing.first)
        if not place:
            return None
        held = self.held[place - 1]
        epoch = self.epoch_at(index)
        if held.state is State.TRUSTED and epoch is not None and self._is_beyond(epoch, held):
            return replace(held, first=epoch[0], state=State.PENDING, reason=NEW_EPOCH, epoch=epoch[1], result="")
        return held

    def epoch_at(self, index: int) -> tuple[int, int, str] | None:
        place = bisect_right(self.epochs, index, key=lambda epoch: epoch[0])
        return self.epochs[place - 1] if place else None

    def is_of(self, epoch: int, boot: str, other: int) -> bool:
        """Return whether another epoch is this one, or one before it, since the first that was found good in this boot.

        A TPM's counts of its starts only rise: what lies between two epochs of a boot is of that boot.
        """
        return other == epoch or self.began.get(boot, epoch) <= other < epoch

    def found(self, good: Standing) -> None:
        """Take the boot that a good standing is of."""
        if boot := boot_of(good.result):
            self.boots[good.epoch] = boot
            self.began.setdefault(boot, good.epoch)

    def _is_beyond(self, epoch: tuple[int, int, str], held: Standing) -> bool:
        """Return whether an epoch is none that a standing may be about. Who verifies offline need not know them all."""
        is_later = epoch[0] > held.first or epoch[1] > held.epoch
        return is_later and not self.is_of(held.epoch, self.boots.get(held.epoch, ""), epoch[1])

    def decided(self, index: int) -> Placed | None:
        return next((one for one in reversed(self.decisions) if one.ruling.first <= index < one.ruling.stop), None)

    def _cut(self) -> None:
        """Cut the log where the answer may change: few pieces, looked up for each interval leaf.

        None: by the epoch that a leaf is in. So a gateway that restarts a thousand times has nothing cut again.
        """
        cuts = {0, *(standing.first for standing in self.held)}
        for one in self.decisions:
            cuts |= {one.ruling.first, one.ruling.stop}
        self.starts, self.affirmed = [], []
        for start in sorted(cuts):
            decided, place = self.decided(start), bisect_right(self.held, start, key=lambda standing: standing.first)
            state = self.held[place - 1].state if place else State.UNATTESTED
            is_affirmed: bool | None = state.is_affirmed
            if decided is not None:
                is_affirmed = decided.decision.admit
            elif state is State.TRUSTED:
                is_affirmed = None
            if not self.affirmed or self.affirmed[-1] != is_affirmed:
                self.starts.append(start)
                self.affirmed.append(is_affirmed)
        self.is_old = False


class Standings:
    """All gateways' standings and decisions, added in the order of the ledger's log; epochs as gateways start them."""

    def __init__(self) -> None:
        self._gateways: dict[str, _Gateway] = {}

    def add(self, index: int, standing: Standing) -> None:
        """Put a standing in force from its `first` leaf on. index: of its leaf in the ledger's log.

        Raises TrustError for one that does not follow the one before it, or reaches back over what it must not.
        """
        held = self._gateways.setdefault(standing.gateway, _Gateway())
        _check(held, standing)
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
        held = self._gateways.setdefault(decision.gateway, _Gateway())
        self.check_ruling(ruling)
        held.decisions.append(Placed(index=index, decision=decision, ruling=ruling))
        held.is_old = True

    def check_ruling(self, ruling: Ruling) -> None:
        """Raise TrustError unless a ruling was made after all others on any of its leaves: else it is a replay."""
        for one in self.decisions(ruling.gateway):
            overlaps = one.ruling.first < ruling.stop and ruling.first < one.ruling.stop
            if overlaps and ruling.made_ns <= one.ruling.made_ns:
                raise TrustError("decision: not made after the one before it on the same leaves: replayed, or late")

    def note_epoch(self, gateway: str, index: int, epoch: int, key: str) -> None:
        """Take an epoch leaf of a gateway's own log; in its order."""
        held = self._gateways.setdefault(gateway, _Gateway())
        if not held.epochs or held.epochs[-1][0] < index:
            held.epochs.append((index, epoch, key))

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
        held = self._gateways.get(gateway, _Gateway())
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
        held = self._gateways.get(gateway, _Gateway())
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
        yield from self._gateways.get(gateway, _Gateway()).sealed

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
        return "" if standing is None else f"{standing.state}: {standing.reason}" if standing.reason else standing.state


def _check(held: _Gateway, standing: Standing) -> None:
    """Raise TrustError unless a standing may follow those that are sealed."""
    newest = held.sealed[-1][1] if held.sealed else None
    if newest is not None and standing.size < newest.size:
        raise TrustError(f"standing: size: got {standing.size}, after one of {newest.size}")
    if standing.first == standing.size:
        return
    if standing.state is not State.PENDING and held.held and standing.first < held.held[0].first:
        raise TrustError("standing: reaches back over leaves from before the first standing")
    boot = boot_of(standing.result)
    if standing.state is State.FAILED and newest is not None:
        over = [one for one in _over(held, standing) if not held.is_of(standing.epoch, boot, one.epoch)]
    elif standing.state is State.PENDING:
        over = [one for one in _over(held, standing) if one.epoch == standing.epoch]
    elif standing.state is State.TRUSTED and newest is not None:
        over = [
            one
            for one in _over(held, standing)
            if not (one.state.is_waiting and held.is_of(standing.epoch, boot, one.epoch))
        ]
    else:
        raise TrustError(f"standing: {standing.state} reaches back over leaves {standing.first}..{standing.size - 1}")
    if over:
        raise TrustError(
            f"standing: {standing.state} of epoch {standing.epoch} reaches back over leaves that are "
            f"{over[0].state} of epoch {over[0].epoch}, and not known to be of one boot"
        )


def _over(held: _Gateway, standing: Standing) -> Iterator[Standing]:
    """Yield those of which a standing takes a leaf that was there when it was sealed, and FAILED ones in any case."""
    end = standing.size
    for one in reversed(held.held):
        if max(one.first, standing.first) < end or one.state is State.FAILED:
            yield one
        end = min(end, one.first)
        if end <= standing.first:
            return
