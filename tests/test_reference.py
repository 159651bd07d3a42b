"""The broker's books by hand: orders, trades, costs, carry. Price 100, deposit 10,000."""

import math

import numpy as np
import pytest

from tests.reference.engine import Books
from tests.reference.slips import Order, Row, Settings

HOLD = Order(exposure=[np.nan])
FLAT_BAR = (0, 0, 0, 0)


def open_books(num_assets=1, **rules):
    return Books(Settings(**rules), num_assets)


def row(*bars, price=100.0, **columns):
    """Bars are (open, high, low, close) in percent of the last close, one per asset."""
    return Row(bars=np.array(bars, float) / 100, price=price, **columns)


def buy(exposure, **levels):
    return Order(exposure=[exposure], **levels)


def near(number):
    return pytest.approx(number, rel=1e-12, abs=1e-9)


# The order and its fill


def test_delta_trade_and_gap():
    books = open_books(commission_rate=0.001, half_spread=0.0005)
    # 50 units at 110, asked 110.055, commission 0.1 % of 5,500
    first = books.bar(row((10, 25, 5, 21)), buy(0.5))
    assert first.cash == near(10_000 - 50 * 110.055 - 5.5)
    assert first.trade_cost == near(50 * 0.055 + 5.5)
    assert first.equity == near(4_491.75 + 50 * 121)
    assert first.weights[0] == near(6_050 / 10_541.75)
    assert first.filled[0] == near(0.5)
    # Nothing to do: the gap from 121 to 108.9 and on to 133.1 is all there is.
    second = books.bar(row((-10, 15, -10, 10)), HOLD)
    assert second.equity == near(4_491.75 + 50 * 133.1)
    # 10 units fewer at 133.1 * 0.8 = 106.48: the difference is dealt, not the position.
    tenth = 10 * 133.1 / second.equity
    third = books.bar(row((-20, 0, -20, -20)), buy(-tenth))
    assert third.trade_cost == near(10 * 106.48 * 0.0015)
    assert third.cash == near(4_491.75 + 10 * 106.48 * (1 - 0.0015))


def test_a_target_is_the_whole_difference_and_the_band_holds_it_back():
    books = open_books(no_trade_band=0.1, minimum_order=0.15)
    assert books.bar(row(FLAT_BAR), Order(target=[0.4])).units[0] == near(40)
    assert books.bar(row(FLAT_BAR), Order(target=[0.5])).units[0] == near(40)  # in the band
    assert books.bar(row(FLAT_BAR), Order(target=[0.53])).units[0] == near(40)  # under the minimum
    assert books.bar(row(FLAT_BAR), Order(target=[0.56])).units[0] == near(56)
    assert books.bar(row(FLAT_BAR), Order(target=[np.nan])).units[0] == near(56)
    assert books.bar(row(FLAT_BAR), Order(target=[0.48])).units[0] == near(56)
    assert books.bar(row(FLAT_BAR), Order(target=[0.0])).units[0] == 0


def test_lots():
    # 0.5 * 10,000 / 100 = 50 units are 16.67 lots of 3: 16 lots.
    books = open_books(lot_size=3.0)
    assert books.bar(row((0, 20, 0, 20)), Order(target=[0.5])).units[0] == 48
    # Worth 10,960 at 120: -0.5 is -45.67 units, 15.2 lots; -0.51 are 46.6 units, 15.5 lots
    assert books.bar(row(FLAT_BAR), Order(target=[-0.5])).units[0] == -45
    assert books.bar(row(FLAT_BAR), Order(target=[-0.51])).units[0] == -45
    assert books.bar(row(FLAT_BAR), Order(lots=[2])).units[0] == -39
    assert books.bar(row(FLAT_BAR), Order(target=[0.0])).units[0] == 0


def test_delay():
    # A quarter of the way from the open 110 to the close 118: 112
    entry = open_books(delay=0.25).bar(row((10, 30, 0, 18)), buy(1.0))
    assert entry.equity == near(10_000 + 100 * (118 - 112))


def test_next_close_and_close():
    later = open_books(fill="next_close", half_spread=0.01)
    bar = row((10, 30, 0, 20), half_spread_open=0.5, half_spread_close=0.01)
    assert later.bar(bar, buy(1.0)).equity == near(10_000 - 100 * 120 * 0.02)
    assert later.bar(row((10, 30, 0, 20)), HOLD).equity == near(9_760 + 100 * 24)
    sooner = open_books(fill="close", half_spread=0.01)
    bar = row((10, 30, 0, 20), half_spread_open=0.02, half_spread_close=0.5)
    assert sooner.bar(bar, buy(1.0)).equity == near(10_000 + 100 * 20 - 100 * 100 * 0.03)


def test_latency_is_a_queue_of_units():
    books = open_books(latency=2)
    for target, held in ((0.5, 0), (0.5, 0), (0.2, 50), (0.2, 50)):
        # 50 units are under way, so the second order is for none; price 100 all along
        assert books.bar(row(FLAT_BAR), Order(target=[target])).units[0] == near(held)
    assert books.bar(row(FLAT_BAR), Order(target=[0.2])).units[0] == near(20)
    # Sized at 100: -20 units, dealt two bars on at 150
    books.bar(row((0, 50, 0, 50)), Order(target=[0.0]))
    books.bar(row(FLAT_BAR), HOLD)
    assert books.bar(row(FLAT_BAR), HOLD).units[0] == 0


def test_participation_leaves_a_rest_at_work():
    # 1,600 of 10,000 traded in the bar: a quarter, 400, is 4 units.
    books = open_books(participation=0.25)
    thin = {"volume_value": 1_600.0}
    assert books.bar(row((50, 50, 0, 0), **thin), buy(0.1)).units[0] == near(4)
    assert books.bar(row(FLAT_BAR, **thin), HOLD).units[0] == near(8)
    assert books.bar(row(FLAT_BAR, **thin), HOLD).units[0] == near(10)  # 2 were left
    assert books.bar(row(FLAT_BAR, **thin), HOLD).units[0] == near(10)
    # Worth 9,800 (the first four cost 150 each): 49 units are ordered and 45 of them not yet there
    # when the target becomes 19.6 units, 5.6 more than the 14 that are.
    assert books.bar(row(FLAT_BAR, **thin), buy(0.5)).units[0] == near(14)
    assert books.bar(row(FLAT_BAR, **thin), Order(target=[0.2])).units[0] == near(18)
    assert books.bar(row(FLAT_BAR, **thin), HOLD).units[0] == near(19.6)


def test_participation_in_lots():
    books = open_books(participation=0.25, lot_size=3.0)
    thin = {"volume_value": 1_600.0}
    assert books.bar(row(FLAT_BAR, **thin), Order(lots=[3])).units[0] == 3
    assert books.bar(row(FLAT_BAR, **thin), HOLD).units[0] == 6


# Limit and stop entries


@pytest.mark.parametrize(
    ("exposure", "levels", "bar", "price"),
    [
        (1.0, {"limit": -5}, (0, 1, -6, 1), 95),  # ask of the low 94.94: through
        (1.0, {"limit": -5}, (0, 1, -4.97, 1), None),  # the low is asked at 95.08
        (1.0, {"limit": -5}, (-8, 1, -9, 1), "open"),  # opens below
        (-1.0, {"limit": 5}, (0, 6, -1, 1), 105),
        (-1.0, {"limit": 5}, (0, 5.05, -1, 1), None),  # bid of the high 104.94
        (-1.0, {"limit": 5}, (8, 9, -1, 1), "open"),
        (1.0, {"stop": 5}, (0, 6, -1, 1), 105),
        (1.0, {"stop": 5}, (0, 4.9, -1, 1), None),  # the high is asked at 104.95
        (1.0, {"stop": 5}, (8, 9, -1, 1), "open"),
        (-1.0, {"stop": -5}, (0, 1, -6, 1), 95),
        (-1.0, {"stop": -5}, (0, 1, -4.5, 1), None),
        (-1.0, {"stop": -5}, (-8, 1, -9, 1), "open"),
    ],
)
def test_levels(exposure, levels, bar, price):
    books = open_books(
        half_spread=0.0005, commission_rate=0.002, maker_rate=-0.0001, slippage=0.0003
    )
    levels = {name: [level / 100] for name, level in levels.items()}
    after = books.bar(row(bar), buy(exposure, **levels))
    side = np.sign(exposure)
    if price is None:
        assert after.cash == 10_000
        assert books.bar(row(FLAT_BAR), HOLD).units[0] == 0  # it has lapsed
        return
    mid = 100 + bar[0] if price == "open" else price
    if price == "open":  # a market order
        rate = 0.0005 + 0.0003 + 0.002
    elif "limit" in levels:  # a rebate, nothing else
        rate = -0.0001
    else:
        rate = 0.0003 + 0.002
    assert after.cash == near(10_000 - side * 100 * mid - 100 * mid * rate)


def test_a_limit_must_be_traded_through_and_a_stop_only_touched():
    free = open_books
    assert free().bar(row((0, 5, -5, 0)), buy(1.0, limit=[-0.05])).units[0] == 0
    assert free().bar(row((0, 5, -5, 0)), buy(-1.0, limit=[0.05])).units[0] == 0
    assert free().bar(row((0, 25, -5, 0)), buy(1.0, stop=[0.25])).units[0] == 100
    assert free().bar(row((0, 5, -25, 0)), buy(-1.0, stop=[-0.25])).units[0] == -100


def test_levels_are_whole_ticks_to_the_passive_side():
    # 97.3 and 102.7 with ticks of 0.5: buy at 97.0, sell at 103.0
    below = open_books(tick_size=0.5).bar(row((0, 1, -4, 0)), buy(1.0, limit=[-0.027]))
    assert below.cash == near(10_000 - 100 * 97)
    above = open_books(tick_size=0.5).bar(row((0, 4, -1, 0)), buy(-1.0, limit=[0.027]))
    assert above.cash == near(10_000 + 100 * 103)
    entry = open_books(tick_size=0.5).bar(row((0, 4, -1, 0)), buy(1.0, stop=[0.027]))
    assert entry.cash == near(10_000 - 100 * 103)


# Costs and carry


def test_minimum_ticket_and_per_unit():
    rules = {"commission_rate": 0.001, "commission_per_unit": 0.02, "minimum_ticket": 3.0}
    # 10 units at 100: 1 + 0.2 is under 3; 50 units: 5 + 1
    assert open_books(**rules).bar(row(FLAT_BAR), buy(0.1)).trade_cost == near(3)
    assert open_books(**rules).bar(row(FLAT_BAR), buy(0.5)).trade_cost == near(6)
    assert open_books(**rules).bar(row(FLAT_BAR), HOLD).trade_cost == 0


def test_slippage_with_volatility():
    books = open_books(slippage=0.001, volatility_slippage=0.1)
    assert books.bar(row(FLAT_BAR, volatility=0.02), buy(1.0)).trade_cost == near(100 * 100 * 0.003)


def test_borrow_is_paid_out_of_cash_bar_by_bar():
    # Short 100 units at 100: 10 % a year on 10,000, then on 12,000, then 9,600
    books = open_books(borrow_rate=0.1)
    books.bar(row((0, 20, 0, 20), years=0.5), buy(-1.0))
    books.bar(row((0, 0, -20, -20), years=0.5), HOLD)
    third = books.bar(row(FLAT_BAR, years=1.0), HOLD)
    assert third.carry == near(960)
    assert third.equity == near(20_000 - 500 - 600 - 960 - 100 * 96)


def test_margin_interest_grows_on_itself():
    # 30,000 of assets on 10,000: 20,000 borrowed at 10 % a year; three years
    books = open_books(margin_rate=0.1)
    for order in (buy(3.0), HOLD, HOLD):
        third = books.bar(row(FLAT_BAR, years=1.0), order)
    assert third.cash == near(-20_000 * 1.1**3)
    assert third.equity == near(30_000 - 26_620)


def test_idle_cash_does_not_count_what_the_short_brought():
    books = open_books(idle_rate=0.05)
    assert books.bar(row(FLAT_BAR, years=1.0), HOLD).equity == near(10_500)
    # Sold for 6,300: cash 16,800 of which 6,300 secures the short
    second = books.bar(row(FLAT_BAR, years=1.0), buy(-0.6))
    assert second.equity == near(10_500 * 1.05)


@pytest.mark.parametrize(
    ("side", "rate", "paid"), [(1, 0.001, 5), (-1, 0.001, -5), (1, -0.002, -10)]
)
def test_funding_is_paid_by_longs_when_positive(side, rate, paid):
    after = open_books().bar(row(FLAT_BAR, funding=rate), buy(0.5 * side))
    assert after.carry == near(paid)
    assert after.equity == near(10_000 - paid)


def test_swaps_per_unit_and_night():
    rules = {"swap_long": -0.03, "swap_short": 0.01}
    assert open_books(**rules).bar(row(FLAT_BAR, nights=3), buy(1.0)).equity == near(10_000 - 9)
    assert open_books(**rules).bar(row(FLAT_BAR, nights=1), buy(-1.0)).equity == near(10_000 + 1)
    assert open_books(**rules).bar(row(FLAT_BAR, nights=0), buy(-1.0)).equity == near(10_000)


@pytest.mark.parametrize("side", [1, -1])
def test_dividends_go_to_who_held_at_the_last_close(side):
    books = open_books()
    assert books.bar(row(FLAT_BAR, dividend=0.02), buy(1.0 * side)).dividends == 0
    # 100 units at 100; sold at the open of the day it goes ex
    after = books.bar(row((-2, 0, -2, 0), dividend=0.02), buy(-1.0 * side))
    assert after.dividends == near(200 * side)
    assert after.equity == near(10_000)
    bought_before = open_books(fill="close").bar(row((-2, 0, -2, -2), dividend=0.02), buy(side))
    assert bought_before.equity == near(10_000)


# Impact: 100 units at 100 are 1 % of an average million


def impacted(kind, exposure=1.0, num_bars=1, bar=FLAT_BAR, fill="next_open", **rules):
    books = open_books(impact=kind, fill=fill, **rules)
    columns = {"average_value": 1e6, "volatility": 0.02, "years": 0.01}
    statements = [books.bar(row(bar, **columns), buy(exposure))]
    for _ in range(num_bars - 1):
        statements.append(books.bar(row(FLAT_BAR, **columns), HOLD))
    return statements


@pytest.mark.parametrize("side", [1, -1])
def test_square_root_impact(side):
    # I = 0.5 * 2 % * sqrt(1 %) = 0.1 %; the price stays 0.05 % away
    first, second = impacted("square_root", side, num_bars=2, coefficient=0.5, permanent=0.5)
    assert first.trade_cost == near(10_000 * 0.001 * 2 / 3)
    assert first.price[0] == near(100 * (1 + side * 0.0005))
    assert first.equity == near(10_000 - 20 / 3 + 5)
    assert second.equity == near(first.equity)


def test_almgren_chriss_impact():
    # sigma x = 0.02 %: cost 0.01 % + 2 * 0.02 %, jump 0.3 * 0.02 %
    rules = {"fixed": 1e-4, "temporary": 2.0, "permanent": 0.3}
    (first,) = impacted("almgren_chriss", bar=(0, 10, 0, 10), **rules)
    assert first.trade_cost == near(10_000 * 5e-4)
    assert first.price[0] == near(110 * (1 + 6e-5))
    (late,) = impacted("almgren_chriss", fill="next_close", **rules)
    assert late.equity == near(10_000 - 5 + 10_000 * 6e-5)


def test_obizhaeva_wang_impact_decays():
    # permanent 1 * 0.02 %, transient 4 * 0.02 %: J = 0.1 %, of which half is the cost
    first, second, third = impacted(
        "obizhaeva_wang", num_bars=3, permanent=1.0, transient=4.0, decay=100 * math.log(2)
    )
    assert first.trade_cost == near(10_000 * 0.0005)
    assert first.price[0] == near(100.1)
    # half of the 0.08 % has gone after a bar, three quarters after two
    assert second.price[0] == near(100.1 * 1.0004 / 1.0008)
    assert third.price[0] == near(100.1 * 1.0002 / 1.0008)
    assert third.equity == near(10_000 - 5 + 100 * (third.price[0] - 100))


# Ruin


def test_ruin_at_the_open_and_at_the_close():
    books = open_books()
    books.bar(row(FLAT_BAR), buy(2.0))
    after = books.bar(row((-60, 20, -60, 20)), HOLD)  # the open leaves -2,000: nobody waits
    assert after.is_ruined
    assert (after.equity, after.units[0], after.cash) == (near(10), 0, near(10))
    later = books.bar(row((50, 50, 50, 50)), buy(1.0))
    assert (later.equity, later.units[0], later.is_ruined) == (near(10), 0, True)
    assert open_books().bar(row((0, 0, -70, -60)), buy(2.0)).is_ruined
    assert not open_books().bar(row((0, 0, -70, -40)), buy(2.0)).is_ruined


def test_ruin_by_the_cost_of_a_trade():
    after = open_books(commission_rate=0.5).bar(row((0, 90, 0, 90)), buy(2.0))
    assert after.is_ruined
    assert after.equity == near(10)


def test_dust_is_neither_bought_nor_left():
    books = open_books(minimum_ticket=1.0)
    assert books.bar(row(FLAT_BAR), buy(1e-6)).trade_cost == 0
    books.bar(row(FLAT_BAR), buy(0.5))
    after = books.bar(row(FLAT_BAR), buy(-0.500_051))  # 0.5 is now 0.500_05 of 9,999
    assert (after.units[0], after.cash) == (0, near(9_998))
