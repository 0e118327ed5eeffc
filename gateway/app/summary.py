"""What the demonstration tells at its end, and of the line meanwhile: read from the ledger's tables."""

from collections.abc import Mapping
from pathlib import Path

from gateway.app.demo import GATEWAY, SETTLED_NS, Site
from gateway.app.demo_plant import LINE
from gateway.app.snapshot import LineSums
from gateway.carbon.figures import Totals
from gateway.errors import ConfigError
from gateway.store import projections as tables
from gateway.store.projections import Projections, Slice

NOW_NS = 5_000_000_000
"""The figure of late rests on this much time."""


def book_of(folder: Path) -> Projections | None:
    """Return the ledger's tables, or None while there are none."""
    try:
        return Projections(folder / "ledger" / "projections.sqlite", new=False)
    except ConfigError:
        return None


def line_sums(folder: Path) -> LineSums | None:
    """Return the line's sums so far, None while there is no figure."""
    book = book_of(folder)
    if book is None:
        return None
    try:
        with book.reading() as connection:
            newest = [figure for figure in tables.latest(connection, known=True) if figure.line == LINE]
            if not newest:
                return None
            everything = tables.totals(connection, Slice(gateway=GATEWAY, line=LINE))
            late = Slice(start_ns=newest[0].end_ns - NOW_NS, gateway=GATEWAY, line=LINE)
            of_late = tables.totals(connection, late).kg_per_unit
    finally:
        book.close()
    return LineSums(
        energy_kwh=everything.energy_mwh / 1e6,
        co2e_kg=float(everything.co2e_g) / 1e3,
        units=float(everything.units_good),
        kg_per_unit_now=None if of_late is None else float(of_late),
    )


def summarise(site: Site, metrics: Mapping[str, float]) -> dict[str, float | int | None]:
    """Return what summary.json says."""
    sealed = int(metrics.get("wattseal_seal_log_size", 0))
    held = int(metrics.get("wattseal_ledger_size", 0))
    found: dict[str, float | int | None] = {
        "readings": int(metrics.get("wattseal_collect_readings_total", 0)),
        "changes": int(metrics.get("wattseal_collect_changes_total", 0)),
        "frames": int(metrics.get("wattseal_collect_frames_total", 0)),
        "leaves": sealed,
        "receipts": int(metrics.get("wattseal_forward_receipts_total", 0)),
        "lost": sealed - held + int(metrics.get("wattseal_collect_dropped_rows_total", 0)),
        "energy_kwh": None,
        "co2e_kg": None,
        "kg_co2e_per_unit_before": None,
        "kg_co2e_per_unit_after": None,
        "kg_co2e_per_unit_repaired": None,
    }
    book = book_of(site.folder)
    if book is None:
        return found
    try:
        with book.reading() as connection:

            def totals(start_ns: int = 0, end_ns: int = 2**63 - 1) -> Totals:
                where = Slice(start_ns=start_ns, end_ns=end_ns, gateway=GATEWAY, line=LINE)
                return tables.totals(connection, where)

            everything = totals()
            found["energy_kwh"] = round(everything.energy_mwh / 1e6, 3)
            found["co2e_kg"] = round(float(everything.co2e_g) / 1e3, 3)
            fault_ns = site.fault_ns or 2**63 - 1
            found["kg_co2e_per_unit_before"] = _per_unit(totals(end_ns=fault_ns - 1_000_000_000))
            if site.fault_ns is not None:
                mended_ns = site.repair_ns or 2**63 - 1
                after = totals(start_ns=fault_ns + SETTLED_NS, end_ns=mended_ns - 1_000_000_000)
                found["kg_co2e_per_unit_after"] = _per_unit(after)
            if site.repair_ns is not None:
                repaired = totals(start_ns=site.repair_ns + SETTLED_NS)
                found["kg_co2e_per_unit_repaired"] = _per_unit(repaired)
    finally:
        book.close()
    return found


def _per_unit(totals: Totals) -> float | None:
    return None if totals.kg_per_unit is None else round(float(totals.kg_per_unit), 4)
