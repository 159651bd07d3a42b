"""Costs of trading and holding, each by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.costs import carry_cost, half_spread, make_costs, slippage, trade_cost
from jaxtrade.specs import JaxtradeError
from tests.plays import FREE
from tests.steps import RATES, bars_of, free_rules, once

# Two assets at 50 and 200 in quote currency; equity 10,000, so that one unit of it is 1e-4.
PRICES = {"price": [50.0, 200.0], "volatility": [0.01, 0.02]}
SPREADS = {"half_spread_open": [1e-4, 2e-4], "half_spread_close": [3e-4, 4e-4]}
UNIT = jnp.float32(1e-4)


def bar_of(**columns):
    return jax.tree.map(lambda leaf: leaf[0], bars_of(np.zeros((1, 2, 4)), **columns))


def array(*values):
    return jnp.asarray(values, jnp.float32)


def plainly(function, *arguments, **options):
    """A result, which is the same compiled and not, without implicit promotion."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        plain = function(*arguments, **options)
        compiled = jax.jit(lambda *given: function(*given, **options))(*arguments)
    np.testing.assert_allclose(plain, compiled, rtol=1e-6)
    return np.asarray(plain)


def paid(rates, quantity=(0.5, -0.2), price=(0.1, 0.0), *, columns=PRICES, **options):
    """What orders cost, f32[2]; by default of values 0.55 and 0.2."""
    costs, bar = make_costs(**{**FREE, **rates}), bar_of(**columns)
    return plainly(trade_cost, costs, bar, array(*quantity), array(*price), UNIT, **options)


# Trading


def test_commission_is_of_the_value_at_the_fill():
    np.testing.assert_allclose(paid({"commission_rate": 0.01}), [0.0055, 0.002], rtol=1e-6)
    each = paid({"commission_rate": [0.01, 0.02]})
    np.testing.assert_allclose(each, [0.0055, 0.004], rtol=1e-6)


def test_commission_per_unit_is_of_units():
    # 0.5 of 10,000 at 50 are 100 units, 0.2 at 200 are 10; each pays 0.3: 30 and 3 of 10,000.
    np.testing.assert_allclose(paid({"commission_per_unit": 0.3}), [0.003, 0.0003], rtol=1e-5)


def test_the_least_ticket_holds_for_each_order_and_none_without_one():
    # 1 % of 5,500 is more than 40, of 2,000 less.
    rates = {"commission_rate": 0.01, "minimum_ticket": 40.0}
    np.testing.assert_allclose(paid(rates), [0.0055, 0.004], rtol=1e-6)
    np.testing.assert_array_equal(paid(rates, quantity=(0.0, 0.0)), [0, 0])


def test_the_spread_is_the_fixed_one_and_the_moment_s():
    rates, columns = {"half_spread": 1e-3}, {**PRICES, **SPREADS}
    np.testing.assert_allclose(paid(rates), [0.55e-3, 0.2e-3], rtol=1e-6)
    opening = [0.55 * 1.1e-3, 0.2 * 1.2e-3]
    np.testing.assert_allclose(paid(rates, columns=columns), opening, rtol=1e-6)
    closing = paid(rates, columns=columns, column="half_spread_close")
    np.testing.assert_allclose(closing, [0.55 * 1.3e-3, 0.2 * 1.4e-3], rtol=1e-6)


def test_slippage_is_fixed_and_of_the_volatility():
    rates = {"slippage": 1e-3, "volatility_slippage": 0.1}
    np.testing.assert_allclose(paid(rates), [0.55 * 0.002, 0.2 * 0.003], rtol=1e-6)
    assert slippage(make_costs(), bar_of()) is None


def test_an_order_that_waited_pays_the_maker_s_rate_and_does_not_slip():
    rates = {"commission_rate": 0.01, "maker_rate": -0.002, "slippage": 1e-3, "half_spread": 5e-3}
    waited = jnp.asarray([True, False])
    found = paid(rates, is_passive=waited, is_in_quote=waited)
    np.testing.assert_allclose(found, [-0.55 * 0.002, 0.2 * 0.016], rtol=1e-6)
    taker = {**rates, "maker_rate": None}
    found = paid(taker, is_passive=waited, is_in_quote=waited)
    np.testing.assert_allclose(found, [0.55 * 0.01, 0.2 * 0.016], rtol=1e-6)


def test_a_price_that_is_a_quote_has_no_spread_but_slips():
    rates = {"slippage": 1e-3, "half_spread": 5e-3}
    found = paid(rates, is_in_quote=jnp.asarray([True, False]))
    np.testing.assert_allclose(found, [0.55e-3, 0.2 * 6e-3], rtol=1e-6)


def test_half_spread_alone():
    costs = make_costs(half_spread=1e-3)
    assert float(half_spread(costs, bar_of())) == pytest.approx(1e-3)
    now = half_spread(costs, bar_of(**SPREADS), "half_spread_close")
    np.testing.assert_allclose(now, [1.3e-3, 1.4e-3], rtol=1e-6)


# Holding


def held(rates, quantity, *, at=(0.0, 0.0), equity=1.0, **columns):
    columns = {"years": 0.5, **columns}
    costs, bar = make_costs(**{**FREE, **rates}), bar_of(**columns)
    given = (costs, bar, array(*quantity), array(*at), jnp.float32(equity))
    return float(plainly(carry_cost, *given))


def test_what_is_sold_short_is_borrowed():
    assert held({"borrow_rate": 0.1}, (0.5, -0.4)) == pytest.approx(0.02)
    each = {"borrow_rate": [0.1, 0.3]}
    assert held(each, (-0.5, -0.4), at=(0.1, 0.0)) == pytest.approx((0.055 + 0.12) / 2)


def test_negative_cash_is_lent_and_idle_cash_earns():
    assert held({"margin_rate": 0.1}, (0.8, 0.6)) == pytest.approx(0.02)
    assert held({"margin_rate": 0.1}, (0.8, 0.6), equity=1.4) == pytest.approx(0, abs=1e-8)
    assert held({"margin_rate": 0.1}, (0.8, -0.6)) == 0
    assert held({"idle_rate": 0.04}, (0.3, 0.2)) == pytest.approx(-0.01)
    # Cash is 1.1, of which 0.4 are of the short sale and 0.4 back it.
    assert held({"idle_rate": 0.04}, (0.3, -0.4)) == pytest.approx(-0.02 * 0.7)
    assert held({"idle_rate": 0.04}, (0.9, 0.6)) == 0


def test_funding_is_paid_by_longs_to_shorts():
    found = held({}, (0.5, -0.4), at=(0.1, 0.0), funding=[0.01, 0.02])
    assert found == pytest.approx(0.55 * 0.01 - 0.4 * 0.02)


def test_swap_is_by_the_unit_and_the_night():
    # Per unit of equity: 0.5 / 50 and 0.4 / 200 units; two nights and three.
    rates = {"swap_long": -0.2, "swap_short": 0.1}
    found = held(rates, (0.5, -0.4), nights=[2, 3], **PRICES)
    assert found == pytest.approx(2 * 0.01 * 0.2 - 3 * 0.002 * 0.1)
    assert held(rates, (0.0, 0.0), nights=[2, 3], **PRICES) == 0


# In the step


def test_costs_of_a_step_by_hand():
    # 10,000 at 50: 0.4 are 80 units, bought at 55 for 4,400. 80 * 0.01 + 4,400 * (5 + 2) / 10,000.
    rules = free_rules(deposit=10_000.0)
    rates = {"half_spread": 5e-4, "slippage": 2e-4, "commission_per_unit": 0.01}
    rules = rules.replace(costs=make_costs(**{**FREE, **rates}))
    account, move = once(rules, [0.4], [[0.1, 0.1, 0.1, 0.1]], price=50.0)
    assert float(move.cost) == pytest.approx((0.8 + 3.08) / 10_000, rel=1e-5)
    assert float(move.gain) == pytest.approx(-float(move.cost), rel=1e-4)
    # Half of it sold a bar later: the equity is smaller, units are units.
    account, move = once(rules, [-account.weights[0] / 2], [[0.0] * 4], price=55.0, account=account)
    assert float(move.cost) * (10_000 - 3.88) == pytest.approx(0.4 + 1.54, rel=1e-4)


def test_which_columns_rates_need():
    assert make_costs().columns() == ()
    assert set(make_costs(**RATES).columns()) == {"price", "nights", "volatility"}
    assert make_costs(commission_per_unit=0.1).columns() == ("price",)


BAD = {
    "negative": ({"half_spread": -1e-4}, "half_spread is -0.0001: give a number from 0 to below 1"),
    "one": ({"commission_rate": 1.0}, "commission_rate is 1.0: give a number from 0 to below 1"),
    "nan": ({"borrow_rate": [0.1, np.nan]}, "borrow_rate is .*, or one for each asset"),
    "rebate": ({"maker_rate": -0.5}, "maker_rate is -0.5: give a number from -0.01 to below 1"),
    "ticket": ({"minimum_ticket": -1.0}, "minimum_ticket is -1.0: give a number 0 or more"),
    "endless": ({"commission_per_unit": np.inf}, "commission_per_unit is inf"),
    "half a swap": ({"swap_long": 1.0}, "swap_long and swap_short go together"),
    "endless swap": ({"swap_long": np.nan, "swap_short": 0.0}, "swap_long is nan: give a finite"),
    "unknown": ({"comission": 1e-4}, "there is no rate 'comission': there are commission_rate"),
    "table": ({"slippage": [[0.1]]}, r"slippage is \[\[0.1\]\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rates(case):
    rates, message = BAD[case]
    with pytest.raises(JaxtradeError, match=message) as error:
        make_costs(**rates)
    assert "\n" not in str(error.value)
