"""The family of `Trading`: one engine under the rules of different venues.

Each class is a contract: what it adds to or changes in `Trading`, which it otherwise keeps. What a
preset sets, an option of the same name replaces: `jaxtrade.make("Forex-v0", market=market,
rules=make_rules(...))`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtrade.assemble import leveraged
from jaxtrade.brackets import make_brackets
from jaxtrade.costs import changed_costs, make_costs
from jaxtrade.envs.actions import Actions, Exposure, Levels, Weights
from jaxtrade.envs.making import make_trading
from jaxtrade.envs.params import EnvParams
from jaxtrade.envs.trading import Trading
from jaxtrade.margin import make_margin
from jaxtrade.market import Market
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError, RiskLimits

Markets = Market | list[Market] | tuple[Market, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StockTrading(Trading):
    """StockTrading-v0: whole shares of one stock, long or short, by the ticket.

    Action: i32[], index into levels (-1, 0, 1).
    Reward: net simple return of equity, less a tenth of what the drawdown grew by.
    Rules: whole shares; 0.005 a share and at least 1.00 an order, in quote currency; half a spread
        of 1e-4 of the price, slippage of 1e-4; 3 % a year on what is sold short, 6 % on negative
        cash; an equity of 100,000 at the start. A column `dividend` is paid on its bar.
    Version: 0.
    """

    actions: Actions = Levels((-1.0, 0.0, 1.0))  # noqa: RUF009 - a frozen value
    terms: tuple[str, ...] = ("simple_return", "drawdown_increase")

    def params(self, market: Any, **options: Any) -> EnvParams:
        """`Trading.params` under these rules."""
        costs = make_costs(
            commission_rate=0.0,
            commission_per_unit=0.005,
            minimum_ticket=1.0,
            half_spread=1e-4,
            slippage=1e-4,
            borrow_rate=0.03,
            margin_rate=0.06,
        )
        preset = {
            "rules": make_rules(costs=costs, lot_size=1.0),
            "rewards": {"simple_return": 1.0, "drawdown_increase": 0.1},
        }
        return super().params(market, **_over(preset, options))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeveragedETF(Trading):
    """LeveragedETF-v0: any exposure from -1 to 1 to a leveraged fund.

    The market is the fund's own bars or, with `leverage` (`make_leveraged_etf`), the underlying,
    of which the fund's bars are made by rebalancing daily: leverage decay is in them.

    Action: f32[1], exposure.
    Reward: log return of equity, less twice its squared deviation from a moving average.
    Rules: 1e-4 of the value in commission, as much in half a spread and in slippage; 5 % a year on
        what is sold short, 6 % on negative cash, 2 % earned on idle cash.
    Version: 0.
    """

    actions: Actions = Exposure(-1.0, 1.0)  # noqa: RUF009
    terms: tuple[str, ...] = ("log_return", "volatility")

    def params(self, market: Any, **options: Any) -> EnvParams:
        """`Trading.params` under these rules."""
        costs = make_costs(slippage=1e-4, borrow_rate=0.05, margin_rate=0.06, idle_rate=0.02)
        preset = {
            "rules": make_rules(costs=costs),
            "rewards": {"log_return": 1.0, "volatility": 2.0},
        }
        return super().params(market, **_over(preset, options))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forex(Trading):
    """Forex-v0: a currency pair in micro lots, with margin, swap and stops in pips.

    A pip is 1e-4 of the quote currency, 1e-2 where the price is above 20 (`pip` says otherwise).

    Action: i32[], index into levels (-5, 0, 5), exposures over equity.
    Reward: log return of equity.
    Rules: an equity of 100 million pips at the start, 10,000 dollars or a million yen; lots of
        1,000 units; leverage up to 30, liquidation at half of that margin; stop-loss 50
        and take-profit 100 pips from the entry; the data's spread (columns `half_spread_open` and
        `half_spread_close`, or `spread`) or, without one, 0.5 pips each way; swap of -0.5 pips a
        night for either side, three nights on Wednesday; no commission, no interest besides.
    Version: 0.
    """

    actions: Actions = Levels((-5.0, 0.0, 5.0))  # noqa: RUF009

    def params(self, market: Any, *, pip: float | None = None, **options: Any) -> EnvParams:
        """`Trading.params` under these rules."""
        price = float(np.median(_first(market).close_prices()))
        unit = (0.01 if price > 20 else 1e-4) if pip is None else pip
        if not 0 < unit < price:
            raise JaxtradeError(f"pip is {pip}: give a size above 0 and below the price")
        context = set(_first(market).spec.context)
        has_spread = bool({"spread", "half_spread_open"} & context)
        costs = make_costs(
            commission_rate=0.0,
            half_spread=0.0 if has_spread else 0.5 * unit / price,
            borrow_rate=0.0,
            margin_rate=0.0,
            swap_long=-0.5 * unit,
            swap_short=-0.5 * unit,
        )
        rules = make_rules(
            costs=costs,
            deposit=1e8 * unit,
            lot_size=1_000.0,
            tick_size=unit / 10.0,
            margin=make_margin(max_leverage=30.0),
            brackets=make_brackets(stop_loss=50 * unit, take_profit=100 * unit, in_price=True),
        )
        preset = {
            "rules": rules,
            "spread_from_data": has_spread,
            "limits": RiskLimits(max_exposure=30.0, max_gross=30.0, max_net=30.0),
        }
        return super().params(market, **_over(preset, options))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perpetual(Trading):
    """Perpetual-v0: a perpetual future on margin, with funding and liquidation.

    Action: i32[], index into levels (-3, -1, 0, 1, 3), exposures over equity.
    Reward: log return of equity.
    Rules: 5e-4 of the value for takers, 2e-4 for makers; 1e-4 of half a spread; leverage up to 10,
        liquidation at 0.5 % of the position's value with a fee of 0.5 %, which leaves nothing: it
        is ruin; a column `funding` is paid by longs to shorts; no interest.
    Version: 0.
    """

    actions: Actions = Levels((-3.0, -1.0, 0.0, 1.0, 3.0))  # noqa: RUF009

    def params(self, market: Any, **options: Any) -> EnvParams:
        """`Trading.params` under these rules."""
        costs = make_costs(commission_rate=5e-4, maker_rate=2e-4, borrow_rate=0.0, margin_rate=0.0)
        margin = make_margin(max_leverage=10.0, maintenance=0.005, liquidation_fee=0.005)
        preset = {
            "rules": make_rules(costs=costs, margin=margin),
            "limits": RiskLimits(max_exposure=10.0, max_gross=10.0, max_net=10.0),
        }
        return super().params(market, **_over(preset, options))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Portfolio(Trading):
    """Portfolio-v0: weights of several assets and cash.

    Observation: `market` f32[W, A, F].
    Action: f32[A + 1], shares of the assets and of cash, taken over their sum; with
        `actions=Weights(long_short=True)` f32[A] from -1 to 1.
    Reward: log return of equity.
    Version: 0.
    """

    actions: Actions = Weights()  # noqa: RUF009
    num_assets: int = 3


def make_stock(market: Markets, **options: Any) -> tuple[Trading, EnvParams]:
    """StockTrading-v0 on a market; `options` are those of `make_trading`."""
    return make_trading(market, kind=StockTrading, **options)


def make_leveraged_etf(
    market: Market, *, leverage: float | None = None, yearly_fee: float = 0.0095, **options: Any
) -> tuple[Trading, EnvParams]:
    """LeveragedETF-v0 on a fund's bars or, with `leverage`, on its underlying's."""
    if leverage is not None:
        market = leveraged(market, leverage, yearly_fee=yearly_fee)
    return make_trading(market, kind=LeveragedETF, **options)


def make_forex(market: Markets, **options: Any) -> tuple[Trading, EnvParams]:
    """Forex-v0 on a market; `options` are those of `make_trading`, and `pip`."""
    return make_trading(market, kind=Forex, **options)


def make_perpetual(market: Markets, **options: Any) -> tuple[Trading, EnvParams]:
    """Perpetual-v0 on a market; `options` are those of `make_trading`."""
    return make_trading(market, kind=Perpetual, **options)


def make_portfolio(market: Markets, **options: Any) -> tuple[Trading, EnvParams]:
    """Portfolio-v0 on a market of several assets; `options` are those of `make_trading`."""
    return make_trading(market, kind=Portfolio, **options)


def _over(preset: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The preset with options in its place; costs alone go into the preset's rules."""
    options = dict(options)
    if options.get("costs") is not None and options.get("rules") is None:
        costs = options.pop("costs")
        if isinstance(costs, Mapping):
            costs = changed_costs(preset["rules"].costs, costs)
        options["rules"] = preset["rules"].replace(costs=costs)
    given = {name: value for name, value in options.items() if value is not None}
    return {**options, **preset, **given}


def _first(market: Markets) -> Market:
    return market if isinstance(market, Market) else market[0]
