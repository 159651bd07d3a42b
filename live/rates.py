"""How many orders there may be in a time; see `limits.GuardLimits`."""


class Rates:
    """Counts of orders, by symbol, agent and account."""
