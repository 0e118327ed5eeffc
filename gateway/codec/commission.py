"""Whether a meter's power and its energy register agree, and if not, what explains it. Pure.

The integral of power over some minutes is held against what the register counted: within 2 % and a register step.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from gateway.codec.integral import Instant, Series, Sums, is_number, sums
from gateway.codec.ratios import Cause, Explanation, explain_ratio

__all__ = ["NOT_PROVEN", "SHARE", "Cause", "Explanation", "Instant", "Judgement", "Other", "Series", "Verdict", "judge"]

SHARE: Final = 0.02
NOT_PROVEN: Final = (
    "It holds two registers of one meter against each other. It does not prove that the meter's own transformer "
    "ratio is right, that it is wired to the load you mean, or that it is exact: a fault that power and energy share "
    "does not show."
)

# With more than this share of tolerance, to agree is no news.
_DECISIVE: Final = 0.1
# What a register must be said to have counted, in its steps, before a factor can be seen in it.
_STEPS: Final = 4
# A gap is longer than so many usual pauses; more than this share of the time in gaps is too much.
_GAP: Final = 5.0
_MOST_GAPS: Final = 0.1
_PIECES: Final = 12
_PIECE_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """The same registers, read in another way. how: that way, as a person writes it into the template."""

    how: str
    series: Series


class Verdict(enum.StrEnum):
    """What came out. UNDECIDED: too little to tell."""

    AGREE = "agree"
    DISAGREE = "disagree"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict with its figures; explanations, the likeliest first, where they disagree.

    why: in one sentence. ratio: register to integral; None where there is no integral.
    """

    verdict: Verdict
    why: str
    seconds: float
    readings: int
    mean_w: float
    integral_wh: float
    counted_wh: float
    tolerance_wh: float
    step_wh: float
    ratio: float | None
    explanations: tuple[Explanation, ...] = ()


def judge(
    series: Series,
    *,
    modulus_wh: float | None = None,
    others: Iterable[Other] = (),
    rated_w: float | None = None,
    failed: int = 0,
) -> Judgement:
    """Return whether power and energy agree, and what explains it if they do not.

    modulus_wh: where the register rolls over. others: other ways to read the same registers, for a wrong order; looked
    at only when power and energy disagree.
    rated_w: the most that the load can draw. failed: how many readings gave nothing at all.
    """
    asked, step_wh = series.instants, series.step_wh
    series = Series(instants=tuple(filter(is_number, asked)), step_wh=step_wh)
    empty = len(asked) - len(series.instants)
    total = sums(series.instants, modulus_wh)
    mean_w = total.integral_wh * 3600 / total.seconds if total.seconds else 0.0
    verdict, why = _gaps(asked, failed) or _verdict(series, total)
    explanations: list[Explanation] = []
    if empty > _MOST_GAPS * len(asked):
        verdict, why = Verdict.DISAGREE, f"{empty} of {len(asked)} readings hold no number"
        explanations = _orders(others, modulus_wh) or [_explanation_of_nothing()]
    elif verdict is Verdict.DISAGREE:
        explanations = [*_orders(others, modulus_wh), *_explained(series, total, modulus_wh)]
        if rated_w and explanations and abs(mean_w) > rated_w:
            text = f"; a mean of {mean_w:,.0f} W is more than rated_power_w, {rated_w:,.0f}: power is the wrong one"
            explanations = [_more(each, text) for each in explanations]
    return Judgement(
        verdict=verdict,
        why=why,
        seconds=total.seconds,
        readings=len(series.instants),
        mean_w=mean_w,
        integral_wh=total.integral_wh,
        counted_wh=total.counted_wh,
        tolerance_wh=_tolerance_wh(total.integral_wh, step_wh),
        step_wh=step_wh,
        ratio=total.counted_wh / total.integral_wh if total.integral_wh else None,
        explanations=tuple(explanations),
    )


def _explanation_of_nothing() -> Explanation:
    return Explanation(cause=Cause.UNKNOWN, text="a wrong register, type or order: see `wattseal probe`")


def _more(explanation: Explanation, text: str) -> Explanation:
    return Explanation(cause=explanation.cause, text=explanation.text + text, factor=explanation.factor)


def _tolerance_wh(expected_wh: float, step_wh: float) -> float:
    return SHARE * abs(expected_wh) + step_wh


def _gaps(instants: Sequence[Instant], failed: int) -> tuple[Verdict, str] | None:
    """Return that there are too few readings, or too long pauses between them; None where there are enough."""
    if len(instants) < 3 or instants[-1].t_s <= instants[0].t_s:
        return Verdict.UNDECIDED, f"got {len(instants)} good readings, want three or more"
    if failed > _MOST_GAPS * (failed + len(instants)):
        return Verdict.UNDECIDED, f"{failed} of {failed + len(instants)} readings failed"
    pauses = [after.t_s - before.t_s for before, after in pairwise(instants)]
    usual_s = median(pauses)
    gaps_s, seconds = sum(pause for pause in pauses if pause > _GAP * usual_s), instants[-1].t_s - instants[0].t_s
    if gaps_s > _MOST_GAPS * seconds:
        return Verdict.UNDECIDED, f"no readings for {gaps_s:.0f} of {seconds:.0f} s: the integral rests on nothing"
    return None


def _verdict(series: Series, total: Sums) -> tuple[Verdict, str]:
    step_wh = series.step_wh
    tolerance_wh = _tolerance_wh(total.integral_wh, step_wh)
    off_wh = abs(total.counted_wh - total.integral_wh)
    if off_wh > tolerance_wh or total.falls:
        return Verdict.DISAGREE, f"they differ by {off_wh:,.3f} Wh, and {tolerance_wh:,.3f} Wh would be allowed"
    if tolerance_wh > _DECISIVE * abs(total.integral_wh):
        if abs(total.integral_wh) <= step_wh / 100:
            return Verdict.UNDECIDED, "the load drew nothing that the register could count: measure while it runs"
        minutes = step_wh / ((_DECISIVE - SHARE) * abs(total.integral_wh)) * total.seconds / 60
        return (
            Verdict.UNDECIDED,
            f"too little energy for a step of {step_wh:,.3f} Wh: want {minutes:,.1f} minutes or more",
        )
    return Verdict.AGREE, f"they differ by {off_wh:,.3f} Wh, and {tolerance_wh:,.3f} Wh are allowed"


def _orders(others: Iterable[Other], modulus_wh: float | None) -> list[Explanation]:
    """Return the other ways to read the registers with which power and energy agree."""
    found = []
    for other in others:
        if not all(map(is_number, other.series.instants)):
            continue
        total = sums(other.series.instants, modulus_wh)
        if _verdict(other.series, total)[0] is Verdict.AGREE and total.counted_wh > 0:
            figures = f"{total.integral_wh:,.3f} Wh of power, {total.counted_wh:,.3f} Wh counted"
            text = f"read {other.how}, they agree: {figures}"
            found.append(Explanation(cause=Cause.ORDER, text=text))
    return found


def _explained(series: Series, total: Sums, modulus_wh: float | None) -> list[Explanation]:
    """Return what explains the figures as they are, the likeliest first."""
    if not any(each.power_w for each in series.instants):
        text = f"power stays at zero while the register counts {total.counted_wh:,.3f} Wh: a wrong register or type"
        return [Explanation(cause=Cause.UNKNOWN, text=text)]
    found = _signs(series, total) or _standing(series, total) or _fallen(total) or _factors(series, total, modulus_wh)
    pieces = _pieces(series, total, modulus_wh)
    if not found and (partly := _partly(pieces, series.step_wh)):
        return [partly]
    if found:
        return found
    ratios = ", ".join(f"{piece.counted_wh / piece.integral_wh:.3g}" for piece in pieces if piece.integral_wh)
    text = "no constant factor explains it" + (f": register to power, piece by piece: {ratios}" if ratios else "")
    text += "; is it the power of this register's circuit, and does the power swing faster than it is read?"
    return [Explanation(cause=Cause.UNKNOWN, text=text)]


def _predicts(factor: float, total: Sums, step_wh: float) -> bool:
    """Return whether the register counted just so many times what the power says, and enough of it to be seen."""
    predicted_wh = factor * total.integral_wh
    enough = abs(predicted_wh) >= _STEPS * step_wh and abs(total.integral_wh) > 0
    return enough and abs(total.counted_wh - predicted_wh) <= _tolerance_wh(predicted_wh, step_wh)


def _signs(series: Series, total: Sums) -> list[Explanation]:
    if _predicts(-1.0, total, series.step_wh):
        turned = "power is negative while the register counts" if total.integral_wh < 0 else "the register counts down"
        text = f"{turned}, by the same amount: a turned current transformer, or the sign of the point's scale"
        return [Explanation(cause=Cause.SIGN, text=text, factor=-1.0)]
    stands = abs(total.counted_wh) <= series.step_wh
    if stands and total.integral_wh <= -_STEPS * series.step_wh:
        text = "power is negative and this register stands: the load feeds in, or its current transformer is turned"
        return [Explanation(cause=Cause.SIGN, text=text)]
    return []


def _standing(series: Series, total: Sums) -> list[Explanation]:
    if abs(total.counted_wh) > series.step_wh or total.falls:
        return []
    text = (
        f"the register did not move, while {total.integral_wh:,.3f} Wh went by, "
        f"{total.integral_wh / series.step_wh:,.0f} of its steps: it counts another tariff, another direction, or is a "
        "partial counter that is held"
    )
    return [Explanation(cause=Cause.PARTIAL, text=text, factor=0.0)]


def _fallen(total: Sums) -> list[Explanation]:
    if not total.falls:
        return []
    text = f"the register fell {total.falls} times: a partial counter that is reset, or a roll-over without a modulus"
    return [Explanation(cause=Cause.PARTIAL, text=text)]


def _factors(series: Series, total: Sums, modulus_wh: float | None) -> list[Explanation]:
    """Return what a factor that holds for the whole and for each piece may be."""
    if not total.integral_wh or not _predicts(ratio := total.counted_wh / total.integral_wh, total, series.step_wh):
        return []
    pieces = _pieces(series, total, modulus_wh)
    if not all(_follows(piece, ratio, series.step_wh) for piece in pieces):
        return []
    steady = "" if len(pieces) > 2 else " (too little energy to say whether that is constant)"
    return explain_ratio(ratio, lambda factor: _predicts(factor, total, series.step_wh), steady)


def _follows(piece: Sums, ratio: float, step_wh: float) -> bool:
    predicted_wh = ratio * piece.integral_wh
    return abs(piece.counted_wh - predicted_wh) <= _PIECE_SHARE * abs(predicted_wh) + 2 * step_wh


def _pieces(series: Series, total: Sums, modulus_wh: float | None) -> list[Sums]:
    """Return the series in pieces of equal time, each long enough for the register to have moved visibly."""
    least_wh = min((abs(wh) for wh in (total.integral_wh, total.counted_wh) if wh), default=0.0)
    count = min(_PIECES, int(least_wh / (_STEPS * series.step_wh)), (len(series.instants) - 1) // 3)
    if count < 2:
        return []
    cuts = [round(i * (len(series.instants) - 1) / count) for i in range(count + 1)]
    return [sums(series.instants[first : last + 1], modulus_wh) for first, last in pairwise(cuts)]


def _partly(pieces: Sequence[Sums], step_wh: float) -> Explanation | None:
    """Return that the register counted rightly in some pieces, and stood in others, if that is so."""
    right = [piece for piece in pieces if _follows(piece, 1.0, step_wh) and piece.counted_wh > 2 * step_wh]
    still = [piece for piece in pieces if piece.counted_wh <= step_wh < _STEPS * step_wh <= piece.integral_wh]
    if not right or not still or len(right) + len(still) < len(pieces) - 2:
        return None
    text = (
        f"the register counted rightly for {sum(p.seconds for p in right):,.0f} s and stood for "
        f"{sum(p.seconds for p in still):,.0f} s: it counts one tariff of several, or is a partial counter"
    )
    return Explanation(cause=Cause.PARTIAL, text=text)
