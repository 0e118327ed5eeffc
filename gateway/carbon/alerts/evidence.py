"""What speaks for a cause, in words with numbers: an asset's starts and loaded time, and what was at the onset."""

from collections.abc import Iterable

from gateway.carbon.alerts.alert import Cause
from gateway.carbon.alerts.baseline import AssetNorm
from gateway.carbon.alerts.observe import MINUTE_NS
from gateway.carbon.alerts.windows import WINDOW_NS, Window

CHANGED, ONSET = "changed", "the onset"
MOST_TOLD = 4
_TOLD = ("job ", "product ", "recipe ")

SHORT_CYCLING = 2.0
"""Times the usual starts: short cycling, where they are also SURE_STARTS standard deviations above."""
SURE_STARTS = 2.5
LEAST_STARTS = 0.2
"""Of the usual starts: a smaller difference is none."""
SURE_DUTY = 1.5
"""The loaded time is measured as it is, and only explains what an asset surely draws beside its baseline."""
LEAST_DUTY = 0.1


def cycles(norm: AssetNorm, name: str, after: Window, *, beside_kw: float) -> tuple[str, bool]:
    """Return in words how an asset's starts and loaded time surely differ from the usual, and whether that explains it.

    beside_kw: what it draws beside its baseline. Words are "" where nothing differs, or nothing is counted.
    """
    said, is_short, is_loaded = [], False, False
    expected = (norm.starts_per_h or 0.0) * after.hours
    spread = max(0.25, norm.starts_spread or 0.0)
    if norm.starts_per_h is not None and name in after.starts:
        starts = after.starts[name]
        apart, noise = starts - expected, (spread * max(expected, 0.25)) ** 0.5
        is_short = starts >= max(2, SHORT_CYCLING * expected) and apart >= SURE_STARTS * noise
        if is_short or (starts != 1 and abs(apart) >= max(SURE_STARTS * noise, LEAST_STARTS * expected)):
            said.append(f"{_per_h(starts / after.hours)} starts/h instead of {_per_h(norm.starts_per_h)}")
    if norm.duty is not None and name in after.loaded_h:
        duty = after.loaded_h[name] / after.hours
        # of a switch whose times are as irregular as its starts: d (1 - d) sqrt(2 c^2 / n)
        noise = norm.duty * (1 - norm.duty) * (2 * spread / max(expected, 0.25)) ** 0.5
        is_other = abs(duty - norm.duty) >= max(SURE_DUTY * noise, LEAST_DUTY)
        is_loaded = is_other and (duty - norm.duty) * beside_kw > 0
        if is_short or is_other:
            said.append(f"loaded {duty:.0%} of the time instead of {norm.duty:.0%}")
    return ", ".join(["short cycling", *said] if is_short else said), is_short or is_loaded


def _per_h(starts: float) -> str:
    return f"{starts:.0f}" if starts >= 5 else f"{starts:.2g}"


def when(apart_ns: int) -> str:
    """Return in words how far something is from the onset."""
    minutes = round(abs(apart_ns) / MINUTE_NS)
    if minutes == 0:
        return f"at {ONSET}"
    return f"{minutes} min {'after' if apart_ns > 0 else 'before'} {ONSET}"


def near(changes: Iterable[tuple[int, str]], onset_ns: int) -> list[str]:
    """Return in words what was told of job, product and recipe near the onset: what is nearest, in order of time."""
    found = [(t_ns - onset_ns, text) for t_ns, text in changes if abs(t_ns - onset_ns) <= 2 * WINDOW_NS]
    nearest = sorted(found, key=lambda one: abs(one[0]))[:MOST_TOLD]
    return [f"{text} {when(apart_ns)}" for apart_ns, text in sorted(nearest, key=lambda one: one[0])]


def told(causes: Iterable[Cause]) -> tuple[str, ...]:
    """Return what `near` said when causes were found."""
    texts = [text for cause in causes for text in cause.evidence if text.startswith(_TOLD) and text.endswith(ONSET)]
    return tuple(dict.fromkeys(texts))


def with_onset(cause: Cause, earlier: Iterable[Cause]) -> Cause:
    """Return a cause with what was seen of its beginning when the alert was raised, which no one can see later."""
    old = next((one for one in earlier if (one.kind, one.name) == (cause.kind, cause.name)), None)
    if old is None:
        return cause
    known = {text.split(" ")[0] for text in cause.evidence if text.endswith(ONSET)}
    seen = tuple(text for text in old.evidence if text.endswith(ONSET) and text.split(" ")[0] not in known)
    return cause._replace(evidence=cause.evidence + seen, confidence=max(cause.confidence, old.confidence))
