"""A room as one resistance and one capacity: fitted from readings, then asked what a set-point costs.

    T[k+1] = Tout + R Q + (T[k] - Tout - R Q) exp(-dt / (R C))

T and Tout in degrees Celsius, Q the heat in kW, R in K/kW, C in kWh/K. The fit minimises the error of the free run:
the model starts at the first reading and sees only weather and heat from there on. So a noisy sensor does not bias
it, as it would a fit of one step to the next. Floats: what comes of it is a prediction, never a figure of the ledger.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from gateway.carbon.linear import deviation, dot, normal, solved, squares
from gateway.errors import GatewayError

MIN_HOURS = 12.0
"""Less than this shows no time constant of a building."""
MIN_SAMPLES = 48
MOST_RMSE_K = 0.5
MOST_UNEXPLAINED = 0.2
"""Of the variance of the indoor temperature, what the free run may leave open."""
MOST_SPREAD = 0.25
"""Of R and C, the standard error as a share of the value."""
_ROUNDS = 60
_STUDENT_95 = 1.96
"""The normal quantile: a fit rests on at least MIN_SAMPLES."""


class PoorFitError(GatewayError):
    """Raised when readings do not determine the model; the text says what is missing."""


class Reading(NamedTuple):
    """Means over one step: indoor_c, outdoor_c in degrees Celsius; heat_kw."""

    indoor_c: float
    outdoor_c: float
    heat_kw: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The model of one room, and how well it is known.

    r_k_per_kw, c_kwh_per_k. r_error, c_error: their standard errors, as a share. correlation: of both errors.
    rmse_k: of the free run. explained: 1 less the share of the temperature's variance that it leaves open.
    """

    r_k_per_kw: float
    c_kwh_per_k: float
    r_error: float
    c_error: float
    correlation: float
    rmse_k: float
    explained: float
    hours: float
    samples: int

    @property
    def tau_h(self) -> float:
        """The time constant in hours."""
        return self.r_k_per_kw * self.c_kwh_per_k


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A set-point change to be judged before it is made.

    cop: heat for each kWh that is paid for. kg_per_kwh: of that kWh. hours: how long the new set-point holds.
    """

    from_c: float
    to_c: float
    outdoor_c: float
    hours: float
    cop: float
    kg_per_kwh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a change would save; negative: cost. A decision's own figure, never one of the ledger.

    coast_h: until the room has reached the new set-point with the heating off. deferred_kwh: what is not drawn while
    it coasts. saved_kwh, saved_kg: over the whole time; low_kg, high_kg: the 95 % interval of saved_kg, from how well
    R and C are known. kg_per_day: once the room has settled.
    """

    coast_h: float
    deferred_kwh: float
    saved_kwh: float
    saved_kg: float
    low_kg: float
    high_kg: float
    kg_per_day: float


def step(reading: Reading, indoor_c: float, *, r_k_per_kw: float, c_kwh_per_k: float, dt_h: float) -> float:
    """Return the indoor temperature one step after indoor_c, in degrees Celsius."""
    settles_at = reading.outdoor_c + r_k_per_kw * reading.heat_kw
    return settles_at + (indoor_c - settles_at) * math.exp(-dt_h / (r_k_per_kw * c_kwh_per_k))


def fit(readings: Sequence[Reading], *, dt_h: float) -> Fit:
    """Return the model that explains readings, which follow each other every dt_h hours. Raises PoorFitError."""
    _check(readings, dt_h)
    try:
        return _fitted(readings, dt_h)
    except ArithmeticError:
        raise PoorFitError(
            "thermal: readings that do not tell R from C: want more days, or a set-back at night"
        ) from None


def _fitted(readings: Sequence[Reading], dt_h: float) -> Fit:
    point = [*_first_guess(readings, dt_h), readings[0].indoor_c]
    best = _errors(readings, point, dt_h)
    damping = 1e-3
    for _ in range(_ROUNDS):
        slopes = _slopes(readings, point, best, dt_h)
        trial = [p + d for p, d in zip(point, _damped(slopes, best, damping), strict=True)]
        errors = _errors(readings, trial, dt_h)
        if squares(errors) < squares(best):
            done = squares(best) - squares(errors) < 1e-12 * (1 + squares(best))
            point, best, damping = trial, errors, damping / 10
            if done:
                break
        else:
            damping *= 10
            if damping > 1e12:
                break
    return _judged(readings, point, best, dt_h)


def predict(model: Fit, change: Change) -> Prediction:
    """Return what a set-point change would save, with its interval. Raises ValueError for one that cannot be."""
    _check_change(change)
    coast_h, deferred, saved = _saved(model.r_k_per_kw, model.c_kwh_per_k, change)
    nudge = 1e-4
    _, _, by_r = _saved(model.r_k_per_kw * math.exp(nudge), model.c_kwh_per_k, change)
    _, _, by_c = _saved(model.r_k_per_kw, model.c_kwh_per_k * math.exp(nudge), change)
    slope_r, slope_c = (by_r - saved) / nudge, (by_c - saved) / nudge
    variance = (slope_r * model.r_error) ** 2 + (slope_c * model.c_error) ** 2
    variance += 2 * model.correlation * slope_r * model.r_error * slope_c * model.c_error
    reach = _STUDENT_95 * math.sqrt(max(0.0, variance))
    return Prediction(
        coast_h=coast_h,
        deferred_kwh=deferred,
        saved_kwh=saved,
        saved_kg=saved * change.kg_per_kwh,
        low_kg=(saved - reach) * change.kg_per_kwh,
        high_kg=(saved + reach) * change.kg_per_kwh,
        kg_per_day=24 * (change.from_c - change.to_c) / model.r_k_per_kw / change.cop * change.kg_per_kwh,
    )


def _saved(r: float, c: float, change: Change) -> tuple[float, float, float]:
    """Return hours of coasting, kWh deferred meanwhile, and kWh saved in all. A rise is a fall backwards in time."""
    low_c, high_c = sorted((change.from_c, change.to_c))
    sign = 1.0 if change.to_c <= change.from_c else -1.0
    held_kw = (change.from_c - change.outdoor_c) / r
    then_kw = (change.to_c - change.outdoor_c) / r
    if sign < 0:
        # Warming up takes the heat that the room then holds; how fast is up to the heater.
        saved = (held_kw - then_kw) * change.hours - c * (high_c - low_c)
        return 0.0, 0.0, saved / change.cop
    coast_h = min(change.hours, r * c * math.log((high_c - change.outdoor_c) / (low_c - change.outdoor_c)))
    saved = held_kw * coast_h + (held_kw - then_kw) * (change.hours - coast_h)
    return coast_h, held_kw * coast_h / change.cop, saved / change.cop


def _check_change(change: Change) -> None:
    if change.hours <= 0 or change.cop <= 0 or change.kg_per_kwh < 0:
        raise ValueError("want hours and cop above 0, and kg_per_kwh of at least 0")
    if min(change.from_c, change.to_c) <= change.outdoor_c:
        raise ValueError(f"got set-points at or below {change.outdoor_c:g} C outdoors, want a room that is heated")


def _check(readings: Sequence[Reading], dt_h: float) -> None:
    hours = dt_h * len(readings)
    if len(readings) < MIN_SAMPLES or hours < MIN_HOURS:
        raise PoorFitError(
            f"thermal: got {len(readings)} readings over {hours:.1f} h, want {MIN_SAMPLES} over {MIN_HOURS:g} h or more"
        )
    if deviation([one.indoor_c for one in readings]) < 0.1:
        raise PoorFitError("thermal: the indoor temperature hardly moves: want a night's set-back, or a cold spell")
    if deviation([one.heat_kw for one in readings]) == 0:
        raise PoorFitError("thermal: the heat never changes: want times with more and with less")


def _first_guess(readings: Sequence[Reading], dt_h: float) -> tuple[float, float]:
    """Return ln R and ln C by least squares of one step to the next: y = a x + b Q, for x = T - Tout."""
    sxx = sxq = sqq = sxy = sqy = 0.0
    for one, following in pairwise(readings):
        x, y, q = one.indoor_c - one.outdoor_c, following.indoor_c - one.outdoor_c, one.heat_kw
        sxx, sxq, sqq = sxx + x * x, sxq + x * q, sqq + q * q
        sxy, sqy = sxy + x * y, sqy + q * y
    whole = sxx * sqq - sxq * sxq
    if whole <= 1e-12 * sxx * sqq:
        raise PoorFitError("thermal: heat and weather change together: want times when one moves without the other")
    a, b = (sxy * sqq - sqy * sxq) / whole, (sqy * sxx - sxy * sxq) / whole
    a = min(max(a, 0.05), 1 - 1e-4)
    r = b / (1 - a)
    if r <= 0:
        raise PoorFitError("thermal: more heat does not make it warmer: check which points say heat and temperature")
    return math.log(r), math.log(-dt_h / (r * math.log(a)))


def _errors(readings: Sequence[Reading], point: Sequence[float], dt_h: float) -> list[float]:
    """Return by reading the measured less the free run's temperature. point: ln R, ln C, the first temperature."""
    bounded = [min(max(value, -20.0), 20.0) for value in point[:2]]
    r, c, indoor_c = math.exp(bounded[0]), math.exp(bounded[1]), point[2]
    errors = []
    for one in readings:
        errors.append(one.indoor_c - indoor_c)
        indoor_c = step(one, indoor_c, r_k_per_kw=r, c_kwh_per_k=c, dt_h=dt_h)
    return errors


def _slopes(
    readings: Sequence[Reading], point: Sequence[float], errors: Sequence[float], dt_h: float
) -> list[list[float]]:
    """Return by parameter how each error changes with it."""
    found = []
    for place in range(len(point)):
        nudged = [value + (1e-6 if at == place else 0.0) for at, value in enumerate(point)]
        moved = _errors(readings, nudged, dt_h)
        found.append([(new - old) / 1e-6 for new, old in zip(moved, errors, strict=True)])
    return found


def _damped(slopes: Sequence[Sequence[float]], errors: Sequence[float], damping: float) -> list[float]:
    """Return a step of Levenberg and Marquardt."""
    matrix = normal(slopes)
    for place in range(len(matrix)):
        matrix[place][place] *= 1 + damping
    return [-value for value in solved(matrix, [dot(slope, errors) for slope in slopes])]


def _judged(readings: Sequence[Reading], point: Sequence[float], errors: Sequence[float], dt_h: float) -> Fit:
    rmse_k = math.sqrt(squares(errors) / len(errors))
    explained = 1 - (rmse_k / deviation([one.indoor_c for one in readings])) ** 2
    matrix = normal(_slopes(readings, point, errors, dt_h))
    # Errors of a free run follow each other: what counts is how many of them are independent.
    variance = squares(errors) / (len(errors) - len(point)) * _dependence(errors)
    columns = [solved(matrix, [float(at == place) for at in range(3)]) for place in range(2)]
    r_var, c_var, both = columns[0][0] * variance, columns[1][1] * variance, columns[0][1] * variance
    r_error, c_error = math.sqrt(max(r_var, 0.0)), math.sqrt(max(c_var, 0.0))
    if rmse_k > MOST_RMSE_K or explained < 1 - MOST_UNEXPLAINED:
        raise PoorFitError(
            f"thermal: poor fit: {rmse_k:.2f} K off and {max(0.0, explained):.0%} explained, want at most "
            f"{MOST_RMSE_K:g} K and {1 - MOST_UNEXPLAINED:.0%}: something else heats or cools this room"
        )
    if max(r_error, c_error) > MOST_SPREAD:
        raise PoorFitError(
            f"thermal: R is known to {r_error:.0%} and C to {c_error:.0%}, want {MOST_SPREAD:.0%}: want more days, or "
            "a night's set-back"
        )
    return Fit(
        r_k_per_kw=math.exp(point[0]),
        c_kwh_per_k=math.exp(point[1]),
        r_error=r_error,
        c_error=c_error,
        correlation=both / (r_error * c_error) if r_error and c_error else 0.0,
        rmse_k=rmse_k,
        explained=explained,
        hours=dt_h * len(readings),
        samples=len(readings),
    )


def _dependence(errors: Sequence[float]) -> float:
    """Return how many errors one independent error stands for, by their first autocorrelation; 1 or more."""
    whole = squares(errors)
    if whole == 0:
        return 1.0
    rho = min(max(dot(errors[:-1], errors[1:]) / whole, 0.0), 0.99)
    return (1 + rho) / (1 - rho)
