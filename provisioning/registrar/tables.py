"""The registrar's tables, for SQLite and PostgreSQL. What may not be twice is a constraint, not a question."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, LargeBinary, MetaData, Table, Text

METADATA = MetaData()

meta = Table("meta", METADATA, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

units = Table(
    "units",
    METADATA,
    Column("serial", Text, primary_key=True),
    Column("folded", Text, nullable=False, unique=True),  # WS-7 and ws-7 are one serial to a person
    Column("state", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("order", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("ek", Text, unique=True),
    Column("ak", Text, unique=True),
    Column("owner", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("began_ns", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("birth", LargeBinary),
    Column("birth_leaf", BigInteger),
    CheckConstraint("state IN ('begun', 'enrolled', 'onboarded', 'revoked', 'decommissioned')", name="units_state"),
)
Index(
    "units_gateway",
    units.c.gateway,
    unique=True,
    sqlite_where=units.c.state == "onboarded",
    postgresql_where=units.c.state == "onboarded",
)

steps = Table(
    "steps",
    METADATA,
    Column("serial", Text, ForeignKey("units.serial"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("result", Text, nullable=False),
    Column("leaf", BigInteger, nullable=False),
)

owners = Table(
    "owners",
    METADATA,
    Column("serial", Text, ForeignKey("units.serial"), primary_key=True),
    Column("leaf", BigInteger, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("since_ns", BigInteger, nullable=False),
)

certificates = Table(
    "certificates",
    METADATA,
    Column("sha256", Text, primary_key=True),
    Column("serial", Text, ForeignKey("units.serial"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
)

records = Table(
    "records",
    METADATA,
    Column("leaf", BigInteger, primary_key=True, autoincrement=False),
    Column("sha256", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("serial", Text, nullable=False, index=True),
    Column("t_ns", BigInteger, nullable=False),
)
