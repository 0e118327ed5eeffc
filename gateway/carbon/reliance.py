"""What is known of one gateway: its standings, decisions and epochs; and the rule by which they hold for a leaf.

See gateway/carbon/standings.py, which has them of all gateways.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from gateway.attest.decision import Ruling
from gateway.attest.ear import boot_of
from gateway.attest.epoch import TPM2_QUOTE
from gateway.errors import TrustError
from gateway.model import Decision, Standing, State

NEW_EPOCH = "a new epoch, not appraised yet"
NO_RESULT = "a TPM has bound its epoch, and no verifier's result stands behind it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A decision, where it is sealed in the ledger's log, and what its note says."""

    index: int
    decision: Decision
    ruling: Ruling


@dataclass(slots=True)
class Reliance:
    """What is known of one. sealed: all standings, as sealed. held: those that still hold for a leaf, by `first`.

    bound: the leaves of epochs that a TPM has bound. boots: of epochs that were found good, by number. began: the first
    such epoch of each boot.
    """

    sealed: list[tuple[int, Standing]] = field(default_factory=list)
    held: list[Standing] = field(default_factory=list)
    decisions: list[Placed] = field(default_factory=list)
    epochs: list[tuple[int, int, str]] = field(default_factory=list)
    bound: set[int] = field(default_factory=set)
    boots: dict[int, str] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    affirmed: list[bool | None] = field(default_factory=list)
    is_old: bool = True

    def is_affirmed(self, index: int) -> bool:
        """Return whether figures may rest on a leaf."""
        if self.is_old:
            self._cut()
        found = self.affirmed[bisect_right(self.starts, index) - 1]
        if found is None:
            standing = self.at(index)
            return not self.is_bound(index) if standing is None else standing.state.is_affirmed
        return found

    def at(self, index: int) -> Standing | None:
        """Return the standing of a leaf, decisions aside."""
        held, epoch = self._sealed_at(index), self.epoch_at(index)
        if held is None:
            return None
        if held.state is State.TRUSTED and epoch is not None and self._is_beyond(epoch, held):
            return replace(held, first=epoch[0], state=State.PENDING, reason=NEW_EPOCH, epoch=epoch[1], result="")
        if held.state is State.UNATTESTED and epoch is not None and self.is_bound(index):
            return replace(held, state=State.PENDING, reason=NO_RESULT, epoch=epoch[1])
        return held

    def _sealed_at(self, index: int) -> Standing | None:
        place = bisect_right(self.held, index, key=lambda standing: standing.first)
        return self.held[place - 1] if place else None

    def is_bound(self, index: int) -> bool:
        """Return whether a leaf is of an epoch that a TPM has bound, as far as it is known."""
        epoch = self.epoch_at(index)
        return epoch is not None and epoch[0] in self.bound

    def epoch_at(self, index: int) -> tuple[int, int, str] | None:
        """Return the epoch of a leaf, of those that are known: its leaf, number and key."""
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

    def note_epoch(self, index: int, epoch: int, key: str, binding: str) -> None:
        """Take an epoch leaf; in the order of the log."""
        if not self.epochs or self.epochs[-1][0] < index:
            self.epochs.append((index, epoch, key))
            if binding == TPM2_QUOTE:
                self.bound.add(index)

    def alone(self, index: int) -> State | None:
        """Return the state that a leaf has by the ledger's word alone: Standings.alone."""
        if not (self.sealed or self.bound) or self.decided(index) is not None:
            return None
        standing = self.at(index)
        if standing is None:
            return State.PENDING if self.is_bound(index) else State.UNATTESTED
        return standing.state if standing.state in {State.UNATTESTED, State.PENDING, State.STALE} else None

    def telling(self, index: int) -> int | None:
        """Return the epoch leaf that tells whether a leaf may count without a result: Standings.telling."""
        sealed, epoch = self._sealed_at(index), self.epoch_at(index)
        has_word = not (self.sealed or self.bound) or self.decided(index) is not None
        if has_word or epoch is None or (sealed is not None and sealed.state is not State.UNATTESTED):
            return None
        return epoch[0]

    def is_unbound(self, index: int) -> bool:
        """Return whether a leaf is known to be of an epoch that no TPM has bound, of no earlier one than standings say.

        Who verifies offline may have been shown an earlier one in place of the leaf's own.
        """
        epoch = self.epoch_at(index)
        place = bisect_right(self.sealed, index, key=lambda one: one[1].size)
        known = next((one.epoch for _, one in reversed(self.sealed[:place]) if one.epoch), 0)
        return epoch is not None and epoch[0] not in self.bound and epoch[1] >= known

    def decided(self, index: int) -> Placed | None:
        """Return the decision that holds for a leaf."""
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
            decided, sealed = self.decided(start), self._sealed_at(start)
            is_affirmed: bool | None = sealed is None or sealed.state.is_affirmed
            if decided is not None:
                is_affirmed = decided.decision.admit
            elif is_affirmed:
                is_affirmed = None
            if not self.affirmed or self.affirmed[-1] != is_affirmed:
                self.starts.append(start)
                self.affirmed.append(is_affirmed)
        self.is_old = False


def check_next(held: Reliance, standing: Standing) -> None:
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


def _over(held: Reliance, standing: Standing) -> Iterator[Standing]:
    """Yield those of which a standing takes a leaf that was there when it was sealed, and FAILED ones in any case."""
    end = standing.size
    for one in reversed(held.held):
        if max(one.first, standing.first) < end or one.state is State.FAILED:
            yield one
        end = min(end, one.first)
        if end <= standing.first:
            return
