"""kWh to CO2e, exact and pure: the same leaves give the same bytes."""
