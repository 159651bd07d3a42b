"""The ledger walked over random bars under random rules: what its tests share."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade import ledger
from jaxtrade.brackets import make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.impact import make_impact
from jaxtrade.margin import make_margin
from jaxtrade.orders import Order
from jaxtrade.rules import make_rules
from jaxtrade.tape import Bar
from tests.plays import FREE

DAY = 1 / 252
NUM_BARS = 32

RATES = {
    "commission_rate": 5e-4,
    "maker_rate": -1e-4,
    "commission_per_unit": 0.01,
    "minimum_ticket": 1.5,
    "half_spread": 2e-4,
    "slippage": 1e-4,
    "volatility_slippage": 0.02,
    "borrow_rate": 0.1,
    "margin_rate": 0.07,
    "idle_rate": 0.01,
    "swap_long": -0.002,
    "swap_short": 0.001,
}


def free_rules(**options):
    """Rules that cost nothing."""
    return make_rules(costs=make_costs(**FREE), **options)


def _with_everything(**options):
    return make_rules(
        costs=make_costs(**RATES),
        latency=1,
        participation=0.2,
        tick_size=0.01,
        margin=make_margin(max_leverage=4.0, liquidation_fee=0.01),
        brackets=make_brackets(stop_loss=0.03, take_profit=0.05, trailing=0.04),
        **options,
    )


def every_rule():
    """All rules together, as far as they go together, by name."""
    return {
        "lots": _with_everything(lot_size=10.0, delay=0.3),
        "obizhaeva_wang": _with_everything(impact=make_impact("obizhaeva_wang")),
        "next_close": _with_everything(impact=make_impact("almgren_chriss"), fill="next_close"),
        "close": _with_everything(impact=make_impact("square_root", permanent=0.3), fill="close"),
    }


def bars_of(returns, *, years=DAY, **columns):
    """Bars [T] of returns [T, A, 4], open, high, low, close over the last close minus one."""
    returns = np.asarray(returns, np.float32)
    shape = returns.shape[:2]
    prices = {name: returns[..., i] for i, name in enumerate(("open", "high", "low", "close"))}
    shared = {"years": years, "new_day": 0.0}
    if "session_end" in columns:
        shared["session_end"] = columns.pop("session_end")
    leaves = {name: np.broadcast_to(np.float32(x), shape[:1]) for name, x in shared.items()}
    leaves |= {name: np.broadcast_to(np.float32(x), shape) for name, x in columns.items()}
    return Bar(**jax.tree.map(jnp.asarray, prices | leaves))


def still(num_bars, num_assets, **columns):
    """Bars in which no price moves."""
    return bars_of(np.zeros((num_bars, num_assets, 4)), **columns)


def random_returns(generator, num_bars, num_assets, deviation=0.015):
    """f32[T, A, 4] that a price could have made."""
    shape = (num_bars, num_assets)
    opening, inside, up, down = deviation * generator.standard_normal((4, *shape))
    first, last = np.exp(0.5 * opening), np.exp(0.5 * opening + inside)
    high = np.maximum(first, last) * np.exp(0.5 * np.abs(up))
    low = np.minimum(first, last) * np.exp(-0.5 * np.abs(down))
    return np.stack([first, high, low, last], axis=-1) - 1


def random_bars(seed=0, num_bars=NUM_BARS, num_assets=3, deviation=0.015):
    """Bars with every column there can be."""
    generator = np.random.default_rng(seed)
    returns = random_returns(generator, num_bars, num_assets, deviation)
    shape = (num_bars, num_assets)
    before = np.exp(np.cumsum(np.log1p(returns[..., 3]), axis=0)) / (1 + returns[..., 3])
    price = 50 * generator.uniform(0.5, 2, num_assets) * before
    return bars_of(
        returns,
        years=DAY * generator.integers(1, 4, num_bars),
        half_spread_open=generator.uniform(0, 3e-4, shape),
        half_spread_close=generator.uniform(0, 3e-4, shape),
        dividend=np.where(generator.random(shape) < 0.1, 0.01, 0.0),
        funding=1e-4 * generator.standard_normal(shape),
        nights=generator.integers(0, 4, shape),
        price=price,
        volume_value=generator.uniform(1e5, 5e6, shape),
        average_value=generator.uniform(1e6, 3e6, shape),
        volatility=generator.uniform(0.01, 0.02, shape),
    )


def random_targets(seed=0, num_bars=NUM_BARS, num_assets=3, exposure=2.0):
    """f32[T, A]: a third leaves the position as it is (NaN), a tenth closes it."""
    generator = np.random.default_rng([seed, 1])
    targets = generator.uniform(-exposure, exposure, (num_bars, num_assets)) / num_assets
    targets[generator.random(targets.shape) < 1 / 3] = np.nan
    targets[generator.random(targets.shape) < 1 / 10] = 0.0
    return jnp.asarray(targets, jnp.float32)


def order_towards(account, target, bar, rules):
    """A market order f32[A] for the difference to a target, NaN for none; whole lots."""
    under_way = ledger.in_flight(account)
    held = account.weights if under_way is None else account.weights + under_way
    wanted = jnp.where(jnp.isnan(target), 0.0, target - held)
    if rules.lot_size is None:
        return wanted
    lot = rules.lot_size * bar.price * ledger.per_currency(account, rules)
    return jnp.round(wanted / lot) * lot


@jax.jit
def walk(targets, bars, rules):
    """Accounts and moves [T] of trading towards targets f32[T, A]."""

    def one(account, row):
        target, bar = row
        order = Order(quantity=order_towards(account, target, bar, rules))
        account, move = ledger.step(account, order, bar, rules)
        return account, (account, move)

    return jax.lax.scan(one, ledger.open_account(targets.shape[1], rules), (targets, bars))[1]


@jax.jit
def trade_all(orders, bars, rules):
    """Accounts and moves [T] of orders f32[T, A] as they are; a pair of levels may be in them."""

    def one(account, row):
        order, bar = row
        account, move = ledger.step(account, order, bar, rules)
        return account, (account, move)

    first = ledger.open_account(orders.quantity.shape[1], rules)
    return jax.lax.scan(one, first, (orders, bars))[1]


def once(rules, order, returns, *, account=None, years=0.0, **columns):
    """One step by hand: (account, move) of an order and the returns [A][4] of one bar."""
    bar = jax.tree.map(lambda leaf: leaf[0], bars_of([returns], years=years, **columns))
    if not isinstance(order, Order):
        order = Order(quantity=jnp.asarray(order, jnp.float32))
    if account is None:
        account = ledger.open_account(len(returns), rules)
    return _step(account, order, bar, rules)


_step = jax.jit(ledger.step)


def equity_of(account):
    """Over the start, f64."""
    return np.exp(np.asarray(account.log_equity, np.float64))


def without(bars, *names):
    """Bars that lack some columns."""
    return bars.replace(**dict.fromkeys(names))
