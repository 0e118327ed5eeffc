"""The tables. Exact numbers stand as decimal strings or whole numbers of 64 bits; all types are PostgreSQL's too."""

from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text, column
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from gateway.carbon.energy import Flag
from gateway.carbon.exact import text
from gateway.carbon.figures import Flags, flag_text

PROJECTION_VERSION = "6"
"""Raised whenever the tables change, or what is written to them: then they are built anew."""


class ExactText(TypeDecorator[Decimal]):
    """A Decimal as its one decimal string."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """To the database."""
        return None if value is None else text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        """From the database."""
        return None if value is None else Decimal(value)


class FlagText(TypeDecorator[Flags]):
    """Flags as their word list."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Flags | None, dialect: Dialect) -> str:  # noqa: ARG002
        """To the database."""
        return flag_text(value or frozenset())

    def process_result_value(self, value: Any, dialect: Dialect) -> Flags:  # noqa: ARG002
        """From the database."""
        return frozenset(map(Flag, value.split(";"))) if value else frozenset()


METADATA = MetaData()

meta = Table("meta", METADATA, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

gateways = Table(
    "gateways",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("receipt", Text),
)

line_schemas = Table(
    "line_schemas",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("leaf_index", BigInteger, primary_key=True, autoincrement=False),
    Column("schema_id", LargeBinary(8), nullable=False),
    Column("line", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("period_s", BigInteger, nullable=False),
    Column("columns", Text, nullable=False),
    Column("context", Text, nullable=False),
)

intervals = Table(
    "intervals",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("leaf_index", BigInteger, primary_key=True, autoincrement=False),
    Column("line", Text, nullable=False),
    Column("t_ns", BigInteger, nullable=False),
    Column("schema_id", LargeBinary(8), nullable=False),
    Column("prev", BigInteger),
    Column("clean", Boolean, nullable=False),
    Column("quarantined", Boolean, nullable=False),
    Index("intervals_by_time", "gateway", "line", "t_ns"),
    Index(
        "intervals_quarantined",
        "gateway",
        sqlite_where=column("quarantined"),
        postgresql_where=column("quarantined"),
    ),
)

factors = Table(
    "factors",
    METADATA,
    Column("leaf_index", BigInteger, primary_key=True, autoincrement=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Column("provider", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("signal", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("granularity", Text, nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    Column("g_per_kwh", ExactText, nullable=False),
    Column("unit", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("supersedes", Text, nullable=False),
    Column("model_date", Text, nullable=False),
    Column("updated_ns", BigInteger),
    Column("gwp_set", Text, nullable=False),
    Column("uncertainty_pct", ExactText),
)

figures = Table(
    "figures",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("line", Text, primary_key=True),
    Column("cell_start_ns", BigInteger, primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("site", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("serial", Text, nullable=False),
    Column("meter_class", Text, nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    Column("register_start", ExactText),
    Column("register_end", ExactText),
    Column("register_unit", Text, nullable=False),
    Column("energy_mwh", BigInteger),
    Column("flags", FlagText, nullable=False),
    Column("zone", Text, nullable=False),
    Column("factor_g_per_kwh", ExactText),
    Column("factor_source", Text, nullable=False),
    Column("factor_type", Text, nullable=False),
    Column("factor_state", Text, nullable=False),
    Column("factor_version", Text, nullable=False),
    Column("factor_leaf_index", BigInteger),
    Column("co2e_g", ExactText),
    Column("clock_state", Integer, nullable=False),
    Column("clock_offset_ms", ExactText, nullable=False),
    Column("start_leaf_index", BigInteger),
    Column("end_leaf_index", BigInteger, nullable=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Column("asset", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("factor_updated_ns", BigInteger),
    Column("gwp_set", Text, nullable=False),
    Column("uncertainty_pct", ExactText),
    Column("plan_sha256", Text, nullable=False),
    Column("factor_unit", Text, nullable=False),
    Column("quantity", ExactText),
    Column("state", Text, nullable=False),
    Column("product", Text, nullable=False),
    Column("recipe", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("shift", Text, nullable=False),
)

line_figures = Table(
    "line_figures",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("line", Text, primary_key=True),
    Column("start_ns", BigInteger, primary_key=True, autoincrement=False),
    Column("site", Text, nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    Column("energy_mwh", BigInteger),
    Column("meters", Integer, nullable=False),
    Column("meters_booked", Integer, nullable=False),
    Column("co2e_g", ExactText),
    Column("units_good", ExactText),
    Column("units_total", ExactText),
    Column("flags", FlagText, nullable=False),
    Column("leaf_index", BigInteger, nullable=False),
    Column("scope1_g", ExactText),
    Column("modelled_mwh", BigInteger),
    Column("modelled_g", ExactText),
    Column("state", Text, nullable=False),
    Column("product", Text, nullable=False),
    Column("recipe", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("shift", Text, nullable=False),
)

hourly_loads = Table(
    "hourly_loads",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("line", Text, primary_key=True),
    Column("hour_ns", BigInteger, primary_key=True, autoincrement=False),
    Column("start_ns", BigInteger, primary_key=True, autoincrement=False),
    Column("end_ns", BigInteger, primary_key=True, autoincrement=False),
    Column("zone", Text, primary_key=True),
    Column("g_per_kwh", Text, primary_key=True),
    Column("energy_mwh", BigInteger, nullable=False),
)

point_schemas = Table(
    "point_schemas",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("leaf_index", BigInteger, primary_key=True, autoincrement=False),
)

epochs = Table(
    "epochs",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("leaf_index", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
    Column("binding", Text, nullable=False),
)

cycles = Table(
    "cycles",
    METADATA,
    Column("gateway", Text, primary_key=True),
    Column("line", Text, primary_key=True),
    Column("asset", Text, primary_key=True),
    Column("start_ns", BigInteger, primary_key=True, autoincrement=False),
    Column("starts", Integer, nullable=False),
    Column("loaded_ns", BigInteger, nullable=False),
    Column("seen_ns", BigInteger, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
    Column("running", Boolean, nullable=False),
)

own_leaves = Table(
    "own_leaves",
    METADATA,
    Column("leaf_index", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("prev", BigInteger),
    Index("own_leaves_by_chain", "kind", "chain", "leaf_index"),
)

statements = Table(
    "statements",
    METADATA,
    Column("record", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("leaf_index", BigInteger, nullable=False),
    Column("supersedes", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("figures", Text, nullable=False),
)

events = Table(
    "events",
    METADATA,
    Column("log", Text, primary_key=True),
    Column("leaf_index", BigInteger, primary_key=True, autoincrement=False),
    Column("what", Text, nullable=False),
    Column("t_ns", BigInteger, nullable=False),
    Column("about", Text, nullable=False),
)
