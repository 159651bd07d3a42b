"""What the guard allows, and what stops trading once it has gone wrong: settings, checked here.

They are the last line, not the policy's own limits (`RiskLimits`), which the graph keeps to: give
them some room above those, for positions drift between bars and a no-trade band leaves them where
they are.
"""

import dataclasses
import math

from jaxtrade.build import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardLimits:
    """What an order must keep to before it is sent. Fractions are of the account's equity.

    max_exposure: of a symbol; max_gross: sum of the absolute values of all positions, which is the
    leverage, also of one agent's over its own equity; max_net: absolute sum of them. All count
    orders under way as filled. margin_rate: margin that a position takes, as a fraction of its
    value, 0 for 1 / max_gross; max_margin: all of the margin in use.

    max_order: value of an order; max_notional: the same in account currency. collar: how far its
    price may be from the last, a fraction; collar_ranges: the same in average true ranges of a bar,
    where that is known, 0 for off. max_age_s: of a quote; max_frozen_s: for how long quotes may
    come and be the same, 0 for any time (closes of bars may be so for ever); max_spread: bid to
    ask, a fraction of the price; max_spread_ratio: the same over its median, 0 for off;
    spike_deviations: a quote this many deviations from the last waits for a second one that says
    so too.

    orders_per_minute, _symbol, _agent: of the account, a symbol, an agent; exits_per_minute: orders
    that only reduce, which the others leave out; orders_per_day, turnover_per_day: of the account,
    turnover as a multiple of equity. What exceeds any of these halts trading.

    worst_move: loss that is assumed of a position without a stop, a fraction of its value, where
    the room to the loss limits is measured; 0 for one average true range.
    """

    max_exposure: float = 1.1
    max_gross: float = 1.25
    max_net: float = 1.25
    margin_rate: float = 0.0
    max_margin: float = 1.0
    max_order: float = 2.5
    max_notional: float = math.inf
    collar: float = 0.1
    collar_ranges: float = 0.0
    max_age_s: float = 30.0
    max_frozen_s: float = 300.0
    max_spread: float = 0.02
    max_spread_ratio: float = 10.0
    spike_deviations: float = 10.0
    orders_per_minute_symbol: int = 20
    orders_per_minute_agent: int = 60
    orders_per_minute: int = 120
    exits_per_minute: int = 120
    orders_per_day: int = 5_000
    turnover_per_day: float = 100.0
    worst_move: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "max_exposure",
            "max_gross",
            "max_net",
            "max_margin",
            "max_order",
            "max_notional",
            "collar",
            "max_age_s",
            "max_spread",
            "spike_deviations",
            "turnover_per_day",
        ):
            value = getattr(self, name)
            require(value > 0, name, value, "a number above 0, .inf for no limit")
        for name in ("margin_rate", "collar_ranges", "max_frozen_s", "max_spread_ratio"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, value, "0 (off) or more")
        for name in (
            "orders_per_minute_symbol",
            "orders_per_minute_agent",
            "orders_per_minute",
            "exits_per_minute",
            "orders_per_day",
        ):
            value = getattr(self, name)
            require(isinstance(value, int) and value >= 1, name, value, "a whole number above 0")
        require(0 <= self.worst_move <= 1, "worst_move", self.worst_move, "a fraction, 0 to 1")

    @property
    def margin_per_value(self) -> float:
        """Margin that one unit of value takes."""
        return self.margin_rate or 1.0 / self.max_gross


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protections:
    """What stops new exposure after losses; see `jaxtrade.live.protections` for the exact rules.

    max_drawdown: of the account's equity below its peak, max_daily_loss: below the day's start,
    fractions, what is open included, 1 for off; flatten: close all positions then, instead of
    leaving them with their stops.

    cooldown_s: no new exposure in a symbol after a trade in it was closed; stop_cooldown_s: after
    it was closed by its stop. stop_guard_trades: after this many trades closed by stops at a loss
    within stop_guard_window_s there is none for stop_guard_lock_s; in the symbol where
    stop_guard_per_symbol, else everywhere. 0 for off.
    """

    max_drawdown: float = 1.0
    max_daily_loss: float = 1.0
    flatten: bool = False
    cooldown_s: float = 0.0
    stop_cooldown_s: float = 0.0
    stop_guard_trades: int = 0
    stop_guard_window_s: float = 86_400.0
    stop_guard_lock_s: float = 86_400.0
    stop_guard_per_symbol: bool = False

    def __post_init__(self) -> None:
        for name in ("max_drawdown", "max_daily_loss"):
            value = getattr(self, name)
            require(0 < value <= 1, name, value, "a fraction of equity above 0, 1 for off")
        for name in ("cooldown_s", "stop_cooldown_s", "stop_guard_window_s", "stop_guard_lock_s"):
            value = getattr(self, name)
            require(0 <= value <= _LONGEST_S, name, value, "seconds, 0 to those of ten years")
        trades = self.stop_guard_trades
        require(
            isinstance(trades, int) and 0 <= trades <= MOST_TRADES,
            "stop_guard_trades",
            trades,
            f"0 (off) to {MOST_TRADES}, the closed trades that are remembered",
        )


MOST_TRADES = 200

_LONGEST_S = 10 * 366 * 86_400.0
