"""Shifts: which one holds at an instant, and where they begin and end. By the wall clock of the plant, in UTC."""

from collections.abc import Iterable

from gateway.config.plan import Plan


class Calendar:
    """The shifts of a plan.

    rules: the UTC offsets of its time zone, as (since ns, seconds east), in order; before the first, UTC.
    """

    def __init__(self, plan: Plan, rules: tuple[tuple[int, int], ...]) -> None:
        self._plan, self._rules = plan, rules

    def shift_at(self, gateway: str, line: str, t_ns: int) -> str:  # noqa: ARG002
        """Return the shift of a line at an instant, as `<date>/<name>`; "" outside of all."""
        return ""

    def cuts(self, gateway: str, line: str, start_ns: int, end_ns: int) -> Iterable[int]:  # noqa: ARG002
        """Yield the instants within (start_ns, end_ns) at which a shift of the line begins or ends."""
        return ()
