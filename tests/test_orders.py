"""Where orders fill: market, limit and stop orders in one bar, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.costs import make_costs
from jaxtrade.orders import Order, fill_price
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from tests.plays import FREE
from tests.steps import bars_of, free_rules, once

BAR = [0.01, 0.05, -0.04, 0.02]  # open, high, low, close over the last close
HALF = 0.001  # half of bid to ask: the bid of the high is 0.04895, the ask of the low -0.03904
NONE = np.nan


def filled(quantity, *, limit=None, stop=None, market=0.0125, returns=BAR):
    """(is_filled, price, is_inside, is_passive) of one order."""
    bar = jax.tree.map(lambda leaf: leaf[0], bars_of([[returns]]))
    levels = {"limit": limit, "stop": stop}
    levels = {name: None if at is None else jnp.float32([at]) for name, at in levels.items()}
    order = Order(quantity=jnp.float32([quantity]), **levels)
    given = (order, jnp.float32([market]), jnp.float32([HALF]), bar)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        plain, compiled = fill_price(*given), jax.jit(fill_price)(*given)
    jax.tree.map(np.testing.assert_array_equal, plain, compiled)
    found = [leaf[0].item() for leaf in (plain.is_filled, plain.price)]
    return (*found, plain.is_inside[0].item(), plain.is_passive[0].item())


AT_MARKET = (True, pytest.approx(0.0125), False, False)
AT_OPEN = (True, pytest.approx(0.01), False, False)
LAPSES = False


def inside(price, *, passive):
    return (True, pytest.approx(price), True, passive)


# quantity, level: what happens
LIMITS = {
    "none": ((1, NONE), AT_MARKET),
    "buy above the open": ((1, 0.02), AT_OPEN),
    "buy at the ask of the open": ((1, 0.01102), AT_OPEN),
    "buy below the ask of the open": ((1, 0.01100), inside(0.011, passive=True)),
    "buy inside": ((1, -0.02), inside(-0.02, passive=True)),
    "buy at the bid of the low": ((1, -0.0395), LAPSES),
    "buy just above the ask of the low": ((1, -0.0390), inside(-0.039, passive=True)),
    "buy below the low": ((1, -0.05), LAPSES),
    "sell below the open": ((-1, 0.0), AT_OPEN),
    "sell inside": ((-1, 0.03), inside(0.03, passive=True)),
    "sell just below the bid of the high": ((-1, 0.0489), inside(0.0489, passive=True)),
    "sell above the bid of the high": ((-1, 0.0495), LAPSES),
}
STOPS = {
    "none": ((1, NONE), AT_MARKET),
    "buy below the open": ((1, 0.0), AT_OPEN),
    "buy inside": ((1, 0.03), inside(0.03, passive=False)),
    "buy above the high, below its ask": ((1, 0.0505), inside(0.0505, passive=False)),
    "buy above the ask of the high": ((1, 0.0512), LAPSES),
    "sell above the open": ((-1, 0.02), AT_OPEN),
    "sell inside": ((-1, -0.02), inside(-0.02, passive=False)),
    "sell below the low, above its bid": ((-1, -0.0405), inside(-0.0405, passive=False)),
    "sell below the bid of the low": ((-1, -0.0412), LAPSES),
}


@pytest.mark.parametrize("case", LIMITS)
def test_limit_orders(case):
    (quantity, level), expected = LIMITS[case]
    found = filled(quantity, limit=level)
    assert found[0] is False if expected is LAPSES else found == expected


@pytest.mark.parametrize("case", STOPS)
def test_stop_orders(case):
    (quantity, level), expected = STOPS[case]
    found = filled(quantity, stop=level)
    assert found[0] is False if expected is LAPSES else found == expected


def test_a_limit_that_is_only_touched_is_not_filled():
    # Without a spread, so that the numbers are exact.
    bar = jax.tree.map(lambda leaf: leaf[0], bars_of([[[0.0, 0.25, -0.25, 0.0]]]))
    for quantity, level in ((1.0, -0.25), (-1.0, 0.25)):
        order = Order(quantity=jnp.float32([quantity]), limit=jnp.float32([level]))
        assert not fill_price(order, bar.open, jnp.float32(0), bar).is_filled[0]
        stop = Order(quantity=jnp.float32([-quantity]), stop=jnp.float32([level]))
        assert fill_price(stop, bar.open, jnp.float32(0), bar).is_filled[0]  # a touch is enough


def test_market_orders_need_no_fill_price():
    bar = jax.tree.map(lambda leaf: leaf[0], bars_of([[BAR]]))
    assert fill_price(Order(quantity=jnp.float32([1.0])), bar.open, jnp.float32(0), bar) is None


# In the step

RATES = {**FREE, "commission_rate": 0.01, "maker_rate": 0.002, "half_spread": HALF}
RULES = make_rules(costs=make_costs(**RATES, slippage=0.003))


def order_at(quantity, **levels):
    levels = {name: jnp.float32([level]) for name, level in levels.items()}
    return Order(quantity=jnp.float32([quantity]), **levels)


@pytest.mark.parametrize(
    ("order", "price", "rate"),
    [
        (order_at(0.5, limit=-0.02), -0.02, 0.002),  # waited: maker, no spread, no slippage
        (order_at(0.5, limit=0.03), 0.01, 0.014),  # at the open: as a market order
        (order_at(0.5, stop=0.03), 0.03, 0.013),  # at the ask: taker and slippage
        (order_at(-0.5, limit=0.03), 0.03, 0.002),
        (order_at(-0.5, stop=-0.02), -0.02, 0.013),
    ],
)
def test_an_order_at_a_price_pays_what_it_should(order, price, rate):
    quantity = float(order.quantity[0])
    account, move = once(RULES, order, [BAR])
    value = abs(quantity) * (1 + price)
    assert float(move.price[0]) == pytest.approx(price, rel=1e-5)
    assert float(move.cost) == pytest.approx(rate * value, rel=1e-4)
    gain = quantity * (0.02 - price) - rate * value
    assert float(move.gain) == pytest.approx(gain, rel=1e-4, abs=1e-7)
    assert float(account.weights[0]) == pytest.approx(quantity * 1.02 / (1 + gain), rel=1e-5)


def test_an_order_that_is_not_reached_lapses():
    account, move = once(RULES, order_at(0.5, limit=-0.2), [BAR])
    assert not account.weights.any()
    assert float(move.cost) == 0
    account, _ = once(RULES, order_at(0.0, limit=NONE), [[0, 0, -0.5, 0]], account=account)
    assert not account.weights.any()


def test_prices_are_whole_ticks_on_the_passive_side():
    # A price of 100 and ticks of 0.5: a buy at -1.8 % waits at 98, a sale at 1.8 % at 102.
    rules = free_rules(tick_size=0.5)
    for order, price in (
        (order_at(0.5, limit=-0.018), -0.02),
        (order_at(-0.5, limit=0.018), 0.02),
        (order_at(0.5, stop=0.018), 0.02),
        (order_at(-0.5, stop=-0.018), -0.02),
    ):
        _, move = once(rules, order, [[0.0, 0.05, -0.05, 0.0]], price=100.0)
        assert float(move.price[0]) == pytest.approx(price, rel=1e-5)


def test_a_delay_fills_on_the_way_to_the_close():
    rules = free_rules(delay=0.25)
    account, move = once(rules, [0.5], [BAR])
    assert float(move.price[0]) == pytest.approx(0.0125)
    assert float(move.gain) == pytest.approx(0.5 * 0.0075, rel=1e-4)
    assert float(account.weights[0]) == pytest.approx(0.51 / 1.00375, rel=1e-5)


def test_latency_lets_orders_wait_as_units():
    # Half of the equity ordered, filled two bars later; meanwhile the price rose by 10 % twice.
    rules, rise = free_rules(latency=2), [0.0, 0.1, 0.0, 0.1]
    account, move = once(rules, [0.5], [rise])
    np.testing.assert_allclose(account.waiting[:, 0], [0, 0.55], rtol=1e-6)
    account, move = once(rules, [0.0], [rise], account=account)
    np.testing.assert_allclose(account.waiting[:, 0], [0.605, 0], rtol=1e-6)
    account, move = once(rules, [0.0], [rise], account=account)
    assert float(move.traded[0]) == pytest.approx(0.605, rel=1e-6)
    assert float(move.gain) == pytest.approx(0.0605, rel=1e-5)
    assert not account.waiting.any()


def test_participation_leaves_a_rest_that_works_on():
    # A tenth of 2,000 traded is 200 of 1,000: 0.2 a bar, so that 0.5 takes three bars.
    rules = free_rules(participation=0.1, deposit=1_000.0)
    account, taken, columns = None, [], {"volume_value": 2_000.0}
    for order in (0.5, 0.0, 0.0, 0.0):
        account, move = once(rules, [order], [[0.0] * 4], account=account, **columns)
        taken.append(float(move.traded[0]))
    np.testing.assert_allclose(taken, [0.2, 0.2, 0.1, 0], atol=1e-6)
    # Of an order at a price nothing works on.
    order, bar = order_at(0.5, limit=-0.01), [0.0, 0.0, -0.02, 0.0]
    account, move = once(rules, order, [bar], **columns)
    assert float(move.traded[0]) == pytest.approx(0.2 * 0.99, rel=1e-5)
    assert not account.rest.any()


BAD = {
    "fill": ({"fill": "open"}, "unknown fill rule 'open': did you mean 'next_open'"),
    "latency": ({"latency": -1}, "latency is -1: give whole bars, 0 to 1000"),
    "half a bar": ({"latency": 0.5}, "latency is 0.5: give whole bars"),
    "delay": ({"delay": 1.5}, "delay is 1.5: give 0 to 1"),
    "delay of a close": ({"delay": 0.5, "fill": "close"}, "fill='next_open' .it is 'close'"),
    "participation": ({"participation": 0.0}, "participation is 0.0: give a part above 0, up to 1"),
    "deposit": ({"deposit": np.inf}, "deposit is inf: give an amount above 0"),
    "lots": ({"lot_size": 0.0}, "lot_size is 0.0: give a number above 0, or one per asset"),
    "ticks": ({"tick_size": [0.1, -1.0]}, "tick_size is .*: give a number above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rules(case):
    options, message = BAD[case]
    with pytest.raises(JaxtradeError, match=message) as error:
        make_rules(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fill", ["next_open", "next_close"])
def test_what_fills_on_the_way_is_worth_the_close(fill):
    order = order_at(0.5, limit=-0.01)
    account, move = once(free_rules(fill=fill), order, [[0.0, 0.01, -0.02, 0.005]])
    np.testing.assert_allclose(move.price, [-0.01], rtol=1e-5)
    np.testing.assert_allclose(move.gain, 0.5 * (0.005 + 0.01), rtol=1e-4)
    np.testing.assert_allclose(account.weights, [0.5 * 1.005 / 1.0075], rtol=1e-5)
