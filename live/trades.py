"""Round trips: what a position earned from flat to flat, which cooldowns and stop-loss guards ask.

Amounts are in quote currency, fees included as they come; a fee or a correction that comes after a
trade was closed changes its profit, as long as the trade is among those that are kept. An execution
that turns a position around closes one trade and opens the next; its fee is on the second.
"""

import dataclasses
import math
from decimal import Decimal
from typing import Any

from jaxtrade.live.events import Leg
from jaxtrade.live.executions import EXACT, NONE
from jaxtrade.live.limits import MOST_TRADES


@dataclasses.dataclass(slots=True)
class OpenTrade:
    """A trade that is on: signed units held, quote currency received less paid; units that were
    put in altogether, and the gross amount that they were worth.
    """

    quantity: Decimal = NONE
    cash: Decimal = NONE
    units: Decimal = NONE
    invested: Decimal = NONE

    @property
    def entry(self) -> float:
        """Mean price of what was put in."""
        return float(self.invested) / float(self.units) if self.units else math.nan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClosedTrade:
    """A trade that is over.

    leg: of the order that closed it; profit: quote currency, fees paid; invested: gross amount put
    in; at_ns: UTC of the fill that closed it.
    """

    agent: str
    symbol: str
    leg: Leg
    profit: Decimal
    invested: Decimal
    at_ns: int


@dataclasses.dataclass(slots=True)
class Trades:
    """The open trade of each (agent, symbol), and the newest closed ones, oldest first."""

    open: dict[tuple[str, str], OpenTrade] = dataclasses.field(default_factory=dict)
    closed: list[ClosedTrade] = dataclasses.field(default_factory=list)

    def fill(
        self, agent: str, symbol: str, quantity: Decimal, price: Decimal, leg: Leg, at_ns: int
    ) -> None:
        """Book an execution of a signed quantity."""
        trade = self._opened(agent, symbol)
        held = trade.quantity
        if held and (held > 0) != (quantity > 0):
            closing = (
                min(quantity, held.copy_negate())
                if quantity > 0
                else max(quantity, held.copy_negate())
            )
            self._book(trade, closing, EXACT.multiply(closing, price), is_entry=False)
            if trade.quantity:
                return
            self._close(agent, symbol, leg, at_ns)
            quantity = EXACT.subtract(quantity, closing)
            if not quantity:
                return
            trade = self._opened(agent, symbol)
        amount = EXACT.multiply(quantity, price)
        self._book(trade, quantity, amount, is_entry=True)

    def correct(
        self, agent: str, symbol: str, quantity: Decimal, amount: Decimal, leg: Leg, at_ns: int
    ) -> None:
        """Book that executions were `quantity` more, signed, and cost `amount` more, than told."""
        trade = self.open.get((agent, symbol))
        if trade is None and not quantity:
            self.pay(agent, symbol, amount)
            return
        trade = self._opened(agent, symbol)
        is_entry = bool(quantity) and (trade.quantity >= 0) == (quantity > 0)
        self._book(trade, quantity, amount, is_entry=is_entry)
        if not trade.quantity:
            self._close(agent, symbol, leg, at_ns)

    def pay(self, agent: str, symbol: str, amount: Decimal) -> None:
        """Book a fee, on the open trade or else on the last one."""
        trade = self.open.get((agent, symbol))
        if trade is not None:
            trade.cash = EXACT.subtract(trade.cash, amount)
            return
        for index in range(len(self.closed) - 1, -1, -1):
            last = self.closed[index]
            if (last.agent, last.symbol) == (agent, symbol):
                profit = EXACT.subtract(last.profit, amount)
                self.closed[index] = dataclasses.replace(last, profit=profit)
                return

    def entries(self) -> dict[str, float]:
        """Mean price at which what is held was entered, by symbol; an agent's before nobody's."""
        return {symbol: trade.entry for (_, symbol), trade in sorted(self.open.items())}

    def entry(self, symbol: str) -> float | None:
        """The same of one symbol; None where nothing is held."""
        keys = [key for key in self.open if key[1] == symbol]
        return self.open[max(keys)].entry if keys else None

    def to_json(self) -> dict[str, Any]:
        """As plain values, which read back as the same."""
        return {
            "open": [
                [*key, *map(str, dataclasses.astuple(trade))]
                for key, trade in sorted(self.open.items())
            ],
            "closed": [
                [one.agent, one.symbol, one.leg, str(one.profit), str(one.invested), one.at_ns]
                for one in self.closed
            ],
        }

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Trades":
        """What `to_json` wrote."""
        return cls(
            open={
                (agent, symbol): OpenTrade(*map(Decimal, numbers))
                for agent, symbol, *numbers in tree["open"]
            },
            closed=[
                ClosedTrade(
                    agent=agent,
                    symbol=symbol,
                    leg=Leg(leg),
                    profit=Decimal(profit),
                    invested=Decimal(invested),
                    at_ns=at_ns,
                )
                for agent, symbol, leg, profit, invested, at_ns in tree["closed"]
            ],
        )

    def _opened(self, agent: str, symbol: str) -> OpenTrade:
        trade = self.open.get((agent, symbol))
        if trade is None:
            trade = self.open[agent, symbol] = OpenTrade()
        return trade

    @staticmethod
    def _book(trade: OpenTrade, quantity: Decimal, amount: Decimal, *, is_entry: bool) -> None:
        trade.quantity = EXACT.add(trade.quantity, quantity)
        trade.cash = EXACT.subtract(trade.cash, amount)
        if is_entry:
            trade.units = EXACT.add(trade.units, quantity.copy_abs())
            trade.invested = EXACT.add(trade.invested, amount.copy_abs())

    def _close(self, agent: str, symbol: str, leg: Leg, at_ns: int) -> None:
        trade = self.open.pop((agent, symbol))
        self.closed.append(
            ClosedTrade(
                agent=agent,
                symbol=symbol,
                leg=leg,
                profit=trade.cash,
                invested=trade.invested,
                at_ns=at_ns,
            )
        )
        del self.closed[:-MOST_TRADES]
