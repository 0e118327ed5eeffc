"""Makes alerts: what is said when one is raised, and when one is cleared."""

from dataclasses import replace

from gateway.carbon.alerts.alert import ACCEPTABLE, DATA, Alert, Cause, alert_id
from gateway.carbon.alerts.baseline import Baseline
from gateway.carbon.alerts.evidence import told, with_onset
from gateway.carbon.alerts.missing import COUNTS, COVERAGE, STUCK
from gateway.carbon.alerts.observe import Observation
from gateway.carbon.alerts.rank import Scene, compared, ranked

_WORDS = {
    COUNTS: "energy flows, and no units are counted: there is no kg/unit",
    STUCK: "energy flows as in production, and the count stands still",
    COVERAGE: "some meters of the line have no energy: the figure is incomplete",
}


def of_scene(alert: Alert, scene: Scene) -> Alert:
    """Return an alert with what a scene says: before, after, and the causes."""
    found = compared(scene)
    if found is None:
        return replace(alert, causes=(Cause("process", "undetermined", 1.0, 0.0, 0.0, ("no grid factor",), False),))
    scene = scene._replace(told=told(alert.causes), is_own=alert.kind in ACCEPTABLE)
    causes = tuple(with_onset(cause, alert.causes) for cause in ranked(scene, found))
    return replace(alert, unit=found.unit, before=found.before, after=found.after, causes=causes)


def without_baseline(alert: Alert, kg_per_unit: float, limit: float) -> Alert:
    """Return an alert of a limit while the baseline is being learned."""
    evidence = (f"{kg_per_unit:.4g} kg/unit is above the limit of {limit:g}", "no baseline of this product yet")
    cause = Cause("process", "undetermined", 1.0, kg_per_unit - limit, 0.0, evidence, determined=False)
    return replace(alert, before=limit, after=kg_per_unit, causes=(cause,))


def of_missing(
    gateway: str, line: str, reason: str, *, seen: Observation, since_ns: int, baseline: Baseline | None
) -> Alert:
    """Return the alert of what is missing. Its KPI is not known."""
    evidence = [_WORDS[reason]]
    hours = (seen.end_ns - since_ns) / 3.6e12
    evidence.append(f"for {hours * 60:.0f} min; the line draws {seen.energy / seen.hours:.4g} kW")
    before = None
    if baseline is not None and seen.usual_factor is not None:
        before = baseline.rates(seen.usual_factor).kg_per_unit
    return Alert(
        id=alert_id(gateway, line, DATA, seen.end_ns),
        gateway=gateway,
        line=line,
        kind=DATA,
        onset_ns=since_ns,
        raised_ns=seen.end_ns,
        before=before,
        product=seen.setting.product,
        recipe=seen.setting.recipe,
        causes=(Cause("data", reason, 1.0, 0.0, 0.95, tuple(evidence)),),
        why=reason,
    )
