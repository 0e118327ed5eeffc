"""Projections: what the logs amount to, as tables. They may be deleted at any time and are made again from the logs."""

from sqlalchemy import Connection

from gateway.store.projections.book import Projections, reset
from gateway.store.projections.read import (
    Slice,
    cells,
    dump,
    events,
    factors,
    figures,
    gateways,
    intervals,
    latest,
    line_figures,
    lines,
    schemas,
    settled_range,
    totals,
)
from gateway.store.projections.tables import PROJECTION_VERSION
from gateway.store.projections.write import (
    EventRow,
    GatewayState,
    IntervalRow,
    put_cells,
    put_events,
    put_factors,
    put_gateway,
    put_intervals,
    put_schema,
)

__all__ = [
    "PROJECTION_VERSION",
    "Connection",
    "EventRow",
    "GatewayState",
    "IntervalRow",
    "Projections",
    "Slice",
    "cells",
    "dump",
    "events",
    "factors",
    "figures",
    "gateways",
    "intervals",
    "latest",
    "line_figures",
    "lines",
    "put_cells",
    "put_events",
    "put_factors",
    "put_gateway",
    "put_intervals",
    "put_schema",
    "reset",
    "schemas",
    "settled_range",
    "totals",
]
