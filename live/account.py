"""What the parts of the engine share: one account, and all that is known of it at this moment."""

import dataclasses
import functools
import math
import zoneinfo
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from jaxtrade.live.bar_builder import BarBuilder
from jaxtrade.live.bookkeeper import Bookkeeper
from jaxtrade.live.brokers.base import Broker, Instrument
from jaxtrade.live.clock import Clock
from jaxtrade.live.desk import Desk
from jaxtrade.live.events import AccountState, Bar, Tick, TradingState
from jaxtrade.live.execution import Execution
from jaxtrade.live.guard import View
from jaxtrade.live.orders import Order, OrderStatus, make_cid
from jaxtrade.live.positions import PositionStatus, position_status
from jaxtrade.live.quotes import Quotes
from jaxtrade.live.rates import Rates
from jaxtrade.live.rows import is_sound
from jaxtrade.live.scene import Scene, Terms
from jaxtrade.live.settings import LiveSettings
from jaxtrade.live.state import SEVERITY, State

RANGE_BARS = 14
"""Over which the average true range runs (Wilder, 1978)."""


class DecisionKeys:
    """Whether there is an order of a decision; the journal refuses those of before, too."""

    def __init__(self, state: State) -> None:
        self._state = state

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and make_cid(key) in self._state.orders


@dataclasses.dataclass(kw_only=True)
class Account:
    """The account; see the module.

    owners: desk of each symbol; closes: last close, or middle of the last quote; ranges: average
    range of a bar as a fraction of the price; told: what the broker said of the account last;
    reported: what it said to hold, by symbol; builders: who makes bars of the ticks of a symbol;
    watch: told of market data, of history too; is_connected, is_reconciling: of the session.
    """

    settings: LiveSettings
    broker: Broker
    clock: Clock
    books: Bookkeeper
    execution: Execution
    desks: dict[str, Desk]
    owners: dict[str, Desk]
    rates: Rates
    quotes: Quotes
    instruments: dict[str, Instrument] = dataclasses.field(default_factory=dict)
    closes: dict[str, float] = dataclasses.field(default_factory=dict)
    ranges: dict[str, float] = dataclasses.field(default_factory=dict)
    reported: dict[str, Decimal] = dataclasses.field(default_factory=dict)
    builders: dict[str, BarBuilder] = dataclasses.field(default_factory=dict)
    told: AccountState | None = None
    watch: Callable[[Tick | Bar], None] = lambda event: None
    is_connected: bool = False
    is_reconciling: bool = True
    epoch: int = 0

    @property
    def state(self) -> State:
        """The fold of the journal."""
        return self.books.state

    @property
    def equity(self) -> float:
        """Of the account, by its books at the last prices."""
        return math.fsum(self.worth().values())

    def worth(self) -> dict[str, float]:
        """Equity of each agent, and of what is nobody's."""
        closes = self.closes
        return {name: book.value(closes) for name, book in self.state.books.items()}

    def worth_of(self, desk: Desk) -> float:
        """Equity of one agent."""
        return self.state.books[desk.name].value(self.closes)

    @functools.cached_property
    def _owner_names(self) -> dict[str, str]:
        return {symbol: desk.name for symbol, desk in self.owners.items()}

    @functools.cached_property
    def time_zone(self) -> zoneinfo.ZoneInfo:
        """Of the account's day."""
        return zoneinfo.ZoneInfo(self.settings.time_zone)

    @property
    def gross(self) -> float:
        """Absolute values of all positions over the equity."""
        gross = math.fsum(book.gross(self.closes) for book in self.state.books.values())
        equity = self.equity
        return gross / equity if equity > 0 else 0.0

    @property
    def trading(self) -> TradingState:
        """The state that counts now: where the journal takes nothing, nothing is opened."""
        state = self.state.trading
        if self.books.is_sound:
            return state
        return max(state, TradingState.REDUCING, key=SEVERITY.index)

    @property
    def may_trade(self) -> bool:
        """Whether anything at all is traded, if only to reduce."""
        return self.trading not in (TradingState.HALTED, TradingState.KILLED)

    def is_reducing(self, desk: Desk) -> bool:
        """Whether an agent may only lower its exposure."""
        record = self.state.agents.get(desk.name)
        is_paused = record is not None and bool(record.paused)
        return is_paused or self.trading is not TradingState.ACTIVE

    def terms(self, desk: Desk) -> Terms:
        """How an agent trades."""
        settings = desk.settings
        return Terms(
            agent=desk.name,
            no_trade_band=desk.no_trade_band,
            minimum_order=settings.minimum_order,
            stop_loss=settings.stop_loss,
            take_profit=settings.take_profit,
            max_order_age_s=settings.max_order_age_s or 0.0,
            holds_exits=self.broker.capabilities.holds_exits,
        )

    def scene(self, desk: Desk, equity: float) -> Scene:
        """What an agent's orders are planned from."""
        entries = self.state.trades.entries() if desk.has_exits else {}
        return self.scene_of(desk.symbols, equity, entries)

    def scene_of(
        self, symbols: Sequence[str], equity: float, entries: Mapping[str, float] | None = None
    ) -> Scene:
        """What orders of symbols are planned from."""
        state, quotes = self.state, self.quotes.known
        return Scene(
            equity=equity,
            prices=self.closes,
            positions={symbol: state.quantity(symbol) for symbol in symbols},
            orders=state.working_orders(),
            instruments=self.instruments,
            now_ns=self.clock.wall_ns(),
            references={symbol: quotes[symbol].middle for symbol in symbols if symbol in quotes},
            entries=entries or {},
        )

    async def histories(self, desk: Desk) -> list[tuple[Bar, ...]]:
        """Finished bars of an agent's symbols, in their order; none where the broker has none."""
        count = self.broker.capabilities.history_bars
        return [
            await self.broker.history(symbol, bar_seconds=desk.bar_seconds, count=count)
            for symbol in (desk.symbols if count else ())
        ]

    def see_quote(self, tick: Tick) -> bool:
        """Take in a quote; whether it is sane and may be acted upon."""
        if not self.quotes.see(tick, steady_ns=self.clock.steady_ns(), epoch=self.epoch):
            return False
        self.closes[tick.symbol] = 0.5 * (tick.bid + tick.ask)
        return True

    def see_bar(self, bar: Bar) -> None:
        """Take in a bar: its close, where there are no quotes, and its true range, a fraction of
        the close before, into the running average. One that is not sound is left alone.
        """
        if not is_sound(bar):
            return
        self.quotes.close(bar, steady_ns=self.clock.steady_ns(), epoch=self.epoch)
        before = self.closes.get(bar.symbol, bar.open)
        width = (max(bar.high, before) - min(bar.low, before)) / before
        known = self.ranges.get(bar.symbol, width)
        self.ranges[bar.symbol] = known + (width - known) / RANGE_BARS

    def status_of(self, symbol: str) -> PositionStatus:
        """Where the position of a symbol stands."""
        desk = self.owners.get(symbol)
        wants_stop = desk is not None and desk.settings.stop_loss > 0
        instrument = self.instruments.get(symbol)
        return position_status(
            self.state,
            symbol,
            wants_stop=wants_stop and self.broker.capabilities.holds_exits,
            broker_quantity=self.reported.get(symbol),
            tolerance=Decimal(0) if instrument is None else instrument.quantity_step / 2,
        )

    def view(self, symbols: Iterable[str], worth: Mapping[str, float]) -> View:
        """What the guard looks at orders of these symbols with; worth: as told by `worth`."""
        state, marks, wanted = self.state, self.state.marks, set(symbols)
        orders = state.working_orders()
        return View(
            limits=self.settings.guard,
            protections=self.settings.protections,
            rates=self.rates,
            instruments=self.instruments,
            quotes=self.quotes.known,
            closes=self.closes,
            positions={symbol: held.quantity for symbol, held in state.positions.items()},
            orders=orders,
            stop_losses={name: desk.settings.stop_loss for name, desk in self.desks.items()},
            owners=self._owner_names,
            agents=worth,
            decision_keys=DecisionKeys(state),
            equity=math.fsum(worth.values()),
            margin_used=0.0 if self.told is None else self.told.margin_used,
            peak_equity=marks.peak_equity,
            day_start_equity=marks.day_start_equity,
            trading=self.trading,
            is_reconciling=self.is_reconciling or not self.is_connected,
            epoch=self.epoch,
            ranges=self.ranges,
            locks=state.locks,
            paused={name: record.paused for name, record in state.agents.items() if record.paused},
            blocked=self._blocked(orders, wanted),
            closed={
                symbol
                for symbol in wanted
                if symbol in self.instruments and not self.instruments[symbol].is_tradable
            },
            wall_ns=self.clock.wall_ns(),
            steady_ns=self.clock.steady_ns(),
        )

    def _blocked(self, orders: Sequence[Order], symbols: set[str]) -> dict[str, str]:
        """Those of the symbols in which nothing may be opened, and why."""
        blocked = {
            order.intent.symbol: f"order {order.cid} is unknown at the broker"
            for order in orders
            if order.status is OrderStatus.UNKNOWN or order.is_doubtful
        }
        bad = (PositionStatus.UNPROTECTED, PositionStatus.MISMATCH, PositionStatus.ORPHAN)
        for symbol in symbols & self.state.positions.keys():
            status = self.status_of(symbol)
            if status in bad:
                blocked.setdefault(symbol, f"the position is {status}")
        return blocked
