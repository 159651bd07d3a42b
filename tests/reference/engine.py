"""A broker's books in float64: prices, units, cash, one loop. Shares no formula with `jaxtrade`.

`Books(settings, assets).bar(row, order)` takes the account over one bar and returns its statement.
"""

import dataclasses
import math
import types

import numpy as np

from tests.reference.inside import LIQUIDATION, NONE
from tests.reference.orders import Orders
from tests.reference.slips import CLOSE_CALL, DUST, Order, Row, Seen, Settings, Statement, Ticket

RUINED = 1e-3
"""The share of the equity of the last close at which an account is given up."""
PER_ACCOUNT = ("deposit", "margin_rate", "idle_rate", "no_trade_band", "minimum_order")


class Books(Orders):
    """Equity = cash + units x price. All lists run over assets; money in quote currency."""

    def __init__(self, settings: Settings, num_assets: int):
        self.settings, self.n = settings, num_assets
        self.each = types.SimpleNamespace(
            **{
                field.name: self.spread_out(getattr(settings, field.name))
                for field in dataclasses.fields(settings)
                if field.name not in (*PER_ACCOUNT, "fill", "impact")
            }
        )
        self.cash, self.equity = settings.deposit, settings.deposit
        self.units = np.zeros(num_assets)
        self.price: list[float] | None = None
        self.stop, self.target, self.best = (np.full(num_assets, np.nan) for _ in range(3))
        self.queue: list[list[Ticket]] = []
        self.rest = np.zeros(num_assets)
        self.transient = np.zeros(num_assets)
        self.is_ruined, self.bar_index, self.is_unsure = False, -1, False

    def spread_out(self, value):
        """One number per asset, as a list; None stays None."""
        return None if value is None else [float(x) for x in np.broadcast_to(value, self.n)]

    # The bar

    def bar(self, row: Row, order: Order, seen: Seen | None = None) -> Statement:
        """One bar, from the close of bar t to the close of bar t+1."""
        self.open_page(row, seen or {})
        if not self.is_ruined:
            self.send(order)
            FILL_RULES[self.settings.fill](self)
            self.close_page()
        return self.statement()

    def open_page(self, row: Row, seen: Seen) -> None:
        """The quotes of the bar in money; what the last trades moved has partly come back."""
        self.bar_index += 1
        self.row = types.SimpleNamespace(
            years=row.years,
            **{
                field.name: self.spread_out(getattr(row, field.name))
                for field in dataclasses.fields(row)
                if field.name not in ("bars", "years")
            },
        )
        if self.price is None:
            any_prices = [7.0 * 13.0**asset for asset in range(self.n)]
            self.price = any_prices if row.price is None else list(self.row.price)
        self.seen, self.last_equity, self.last_price = seen, self.equity, list(self.price)
        base = list(self.price)
        if self.settings.impact == "obizhaeva_wang":
            for asset in range(self.n):
                without = base[asset] / (1 + self.transient[asset])
                self.transient[asset] *= math.exp(-self.each.decay[asset] * row.years)
                base[asset] = without * (1 + self.transient[asset])
        self.open, self.high, self.low, self.close = (
            [base[a] * (1 + float(row.bars[a, i])) for a in range(self.n)] for i in range(4)
        )
        self.trade_cost = self.exit_cost = self.carry = self.dividends = 0.0
        self.exits, self.filled = np.zeros(self.n, int), np.zeros(self.n)
        self.is_filled_inside, self.went_under = [False] * self.n, False
        self.lots_margin = np.full(self.n, np.inf)

    def next_open(self) -> None:
        """Gap, trade at the open, hold."""
        self.receive_dividends()
        if self.is_worth_nothing(self.worth(self.open)):
            return
        self.call_at_the_open()
        delay = self.settings.delay or 0.0
        fills = [o + delay * (c - o) for o, c in zip(self.open, self.close, strict=True)]
        self.fill_levels(fills)
        before = np.sign(self.units)
        moved = self.trade(fills, self.row.half_spread_open)
        entries = [fills[a] * (1 + moved[a]) for a in range(self.n)]
        if self.is_worth_nothing(self.worth(entries)):
            return
        for asset in range(self.n):
            self.move_prices(asset, moved[asset])
        is_kept = before * np.sign(self.units) > 0
        start = [self.open[a] if is_kept[a] else entries[a] for a in range(self.n)]
        self.hold(start, entries)
        self.price = self.close

    def next_close(self) -> None:
        """Hold the old position, trade at the close."""
        self.receive_dividends()
        if self.is_worth_nothing(self.worth(self.open)):
            return
        self.hold(self.open, self.last_price)
        is_called = LIQUIDATION in self.exits
        for asset in range(self.n):  # an order meant for a position that has left is void
            if is_called or self.exits[asset] != NONE:
                self.cancel(asset)
        moved = self.trade(self.close, self.row.half_spread_close)
        self.price = [self.close[a] * (1 + moved[a]) for a in range(self.n)]
        self.is_worth_nothing(self.worth(self.price))

    def at_close(self) -> None:
        """Trade at the close of bar t, hold the new position."""
        moved = self.trade(self.last_price, self.row.half_spread_open)
        entries = [self.last_price[a] * (1 + moved[a]) for a in range(self.n)]
        if self.is_worth_nothing(self.worth(entries)):
            return
        for asset in range(self.n):
            self.move_prices(asset, moved[asset])
        self.receive_dividends()
        if self.is_worth_nothing(self.worth(self.open)):
            return
        self.hold(self.open, entries)
        self.price = self.close

    # The trade

    def trade(self, fills: list[float], spread_column: list[float]) -> list[float]:
        """Deal what is wanted at these prices; the jump of each price, a fraction."""
        self.scale_to_initial_margin(fills)
        moved = [0.0] * self.n
        for asset in range(self.n):
            units = self.share_of_volume(asset)
            units = self.agreed_lots(asset, units)
            if self.is_dust(asset, units):
                continue
            if self.is_dust(asset, self.units[asset] + units):
                units = -self.units[asset]  # meant to close
            moved[asset] = self.deal(asset, units, fills[asset], spread_column[asset])
            was, self.units[asset] = self.units[asset], self.units[asset] + units
            self.filled[asset] = units * self.last_price[asset] / self.last_equity
            if self.units[asset] == 0:
                self.clear_brackets(asset)
            elif was * self.units[asset] <= 0:
                self.set_brackets(asset, fills[asset])
        return moved

    def is_dust(self, asset: int, units: float) -> bool:
        """Whether the amount is too small to mean anything; a lot never is."""
        least = 0.0 if self.settings.lot_size is not None else DUST * self.last_equity
        return abs(units) * self.last_price[asset] <= least

    def deal(self, asset: int, units: float, price: float, spread_column: float) -> float:
        """Pay for the units and for the trade; how far it moves the price, a fraction."""
        is_inside = self.is_filled_inside[asset]
        is_passive = is_inside and not np.isnan(self.working[asset].limit)
        side = math.copysign(1.0, units)
        pushed, jump = (0.0, 0.0) if is_passive else self.impact(asset, units, price)
        away = pushed
        if not is_inside:
            away += self.each.half_spread[asset] + spread_column
        if not is_passive:
            away += self.slippage(asset)
        ticket = self.commission(asset, units, price, maker=is_passive)
        self.cash -= units * price * (1 + side * away) + ticket
        self.trade_cost += abs(units) * price * away + ticket
        return jump

    def impact(self, asset: int, units: float, price: float) -> tuple[float, float]:
        """(cost as a share of the value, jump of the price with the side of the order)."""
        rules, kind, side = self.each, self.settings.impact, math.copysign(1.0, units)
        if kind is None:
            return 0.0, 0.0
        share = abs(units) * price / self.row.average_value[asset]
        sigma = self.row.volatility[asset]
        if kind == "square_root":
            peak = rules.coefficient[asset] * sigma * math.sqrt(share)
            return peak * 2 / 3, side * rules.permanent[asset] * peak
        if kind == "almgren_chriss":
            cost = rules.fixed[asset] + rules.temporary[asset] * sigma * share
            return cost, side * rules.permanent[asset] * sigma * share
        lasting = rules.permanent[asset] * sigma * share
        passing = rules.transient[asset] * sigma * share
        self.transient[asset] += side * passing
        return (lasting + passing) / 2, side * (lasting + passing)

    def move_prices(self, asset: int, jump: float) -> None:
        """All that is quoted in the bar after our trade."""
        for quotes in (self.open, self.high, self.low, self.close):
            quotes[asset] *= 1 + jump

    # The account

    def worth(self, prices: list[float]) -> float:
        """Cash and positions, money."""
        return self.cash + sum(u * p for u, p in zip(self.units, prices, strict=True))

    def receive_dividends(self) -> None:
        """To who held at the last close; who is short pays."""
        for asset, units in enumerate(self.units):
            self.dividends += units * self.last_price[asset] * self.row.dividend[asset]
        self.cash += self.dividends

    def call_at_the_open(self) -> None:
        """Positions that the gap left without maintenance margin are closed, orders void."""
        if self.settings.maintenance is None or not np.any(self.units):
            return
        free = self.free(0.0, [None] * self.n, self.open, 0.0)
        if not self.decide("opening call", -1, free <= 0, free / self.last_equity):
            return
        for asset in range(self.n):
            self.cancel(asset)
            if self.units[asset] != 0:
                self.liquidate(asset, self.open[asset])

    def is_worth_nothing(self, worth: float) -> bool:
        """Marks the account as ruined if so."""
        off = worth / self.last_equity - RUINED
        self.is_unsure |= abs(off) <= CLOSE_CALL
        self.went_under = off <= 0
        return self.went_under

    def close_page(self) -> None:
        """Mark at the close."""
        self.equity = self.worth(self.price)
        if self.went_under or self.is_worth_nothing(self.equity):
            self.is_ruined = True
            self.equity = self.cash = self.last_equity * RUINED
            self.units[:] = 0.0
            self.price = self.close

    def statement(self) -> Statement:
        """What the customer is sent."""
        return Statement(
            equity=self.equity,
            weights=self.units * np.array(self.price) / self.equity,
            units=self.units.copy(),
            cash=self.cash,
            price=np.array(self.price),
            trade_cost=self.trade_cost,
            exit_cost=self.exit_cost,
            carry=self.carry,
            dividends=self.dividends,
            exits=self.exits.copy(),
            filled=self.filled.copy(),
            is_ruined=self.is_ruined,
        )


FILL_RULES = {
    "next_open": Books.next_open,
    "next_close": Books.next_close,
    "close": Books.at_close,
}
