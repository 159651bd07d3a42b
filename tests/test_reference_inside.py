"""The broker's books by hand: brackets, margin, liquidation. Price 100, deposit 10,000."""

import numpy as np
import pytest

from tests.reference.engine import Books
from tests.reference.slips import Order
from tests.test_reference import FLAT_BAR, HOLD, buy, near, open_books, row

NONE, STOP, TARGET, LIQUIDATION = range(4)
BRACKETS = {"stop_loss": 0.05, "take_profit": 0.1}


def entered(side=1.0, **rules) -> Books:
    """Books with `side` times 100 units bought at 100."""
    books = open_books(**rules)
    books.bar(row(FLAT_BAR), buy(side))
    return books


def left(side, bar, **rules):
    """(exit, cash) after one bar of a long or, all turned round, a short position."""
    opening, high, low, close = bar if side > 0 else (-bar[0], -bar[2], -bar[1], -bar[3])
    after = entered(side, **rules).bar(row((opening, high, low, close)), HOLD)
    return after.exits[0], (after.equity - 10_000) / 100


# Brackets


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(
    ("bar", "code", "gain"),
    [
        ((0, 2, -4.9, 1), NONE, 1),
        ((0, 2, -5, 1), STOP, -5),  # touched
        ((0, 12, -8, 1), STOP, -5),  # both: the stop came first
        ((-7, 2, -9, 1), STOP, -7),  # gapped: at the open
        ((0, 10, -1, 1), NONE, 1),  # a target must be traded through
        ((0, 10.1, -1, 1), TARGET, 10),
        ((12, 13, -8, 1), TARGET, 12),  # gapped in favour: at the open, whatever came later
    ],
)
def test_stop_and_target(side, bar, code, gain):
    exit_code, gained = left(side, bar, **BRACKETS)
    assert exit_code == code
    assert gained == near(gain)


def test_levels_stand_against_the_quote_that_closes():
    # The bid is 1 % under the mid: 95.95 * 0.99 = 94.9905 touches 95, 111.1 * 0.99 = 109.989 not.
    assert entered(half_spread=0.01, **BRACKETS).bar(row((0, 1, -4.05, 0)), HOLD).exits[0] == STOP
    assert entered(half_spread=0.01, **BRACKETS).bar(row((0, 11.1, 0, 0)), HOLD).exits[0] == NONE
    books = entered(half_spread=0.01, **BRACKETS)
    before = books.cash
    gapped = books.bar(row((-6, 0, -6, 0)), HOLD)
    assert gapped.cash == near(before + 100 * 94 * 0.99)


def test_exits_pay_commission_and_stops_slippage():
    rules = {
        "commission_rate": 0.001, "maker_rate": 0.0002, "slippage": 0.0005,
        "commission_per_unit": 0.01, **BRACKETS,
    }  # fmt: skip
    stopped = entered(**rules).bar(row((0, 0, -6, 0)), HOLD)
    assert stopped.exit_cost == near(9_500 * 0.0015 + 1)
    won = entered(**rules).bar(row((0, 11, 0, 0)), HOLD)
    assert won.exit_cost == near(11_000 * 0.0002 + 1)
    dear = entered(minimum_ticket=20.0, **BRACKETS).bar(row((0, 11, 0, 0)), HOLD)
    assert dear.exit_cost == near(20)


def test_a_new_position_is_watched_from_its_own_bar_and_keeps_its_levels():
    books = open_books(**BRACKETS)
    assert books.bar(row((10, 11, 4, 6)), buy(0.5)).exits[0] == STOP  # 110 * 0.95 = 104.5
    books = open_books(**BRACKETS)
    books.bar(row((0, 8, 0, 8)), buy(0.5))
    books.bar(row(FLAT_BAR), buy(0.2))  # more at 108: the levels stay at 95 and 110
    books.bar(row(FLAT_BAR), buy(-0.1))
    after = books.bar(row((0, 5, 0, 0)), HOLD)
    assert after.exits[0] == TARGET
    # 50 at 100, then 0.2 and -0.1 of 10,400, at 108
    assert after.equity == near(10_400 + (50 + 0.1 * 10_400 / 108) * 2)


def test_a_flip_sets_new_levels():
    books = entered(**BRACKETS)
    flipped = books.bar(row((-6, -5, -6, -5)), buy(-2.0))  # not stopped: it trades at the open
    assert (flipped.exits[0], flipped.units[0]) == (NONE, near(-100))
    after = books.bar(row((0, 5, 0, 0)), HOLD)  # 95 * 1.05 = 99.75, stop of the short 98.7
    assert after.exits[0] == STOP
    assert after.cash == near(10_000 - 600 + 9_400 - 100 * 98.7)


def test_under_next_close_levels_wait_for_the_next_bar_and_an_exit_voids_the_order():
    books = open_books(fill="next_close", **BRACKETS)
    assert books.bar(row((0, 20, -20, 0)), buy(1.0)).exits[0] == NONE
    after = books.bar(row((0, 0, -6, -2)), buy(-1.0))
    assert (after.exits[0], after.units[0]) == (STOP, 0)
    assert after.equity == near(9_500)


def test_an_exit_voids_what_is_under_way():
    books = open_books(participation=0.1, stop_loss=0.05)
    thin = {"volume_value": 10_000.0}
    assert books.bar(row(FLAT_BAR, **thin), buy(0.5)).units[0] == near(10)
    assert books.bar(row((0, 0, -6, 0), **thin), HOLD).exits[0] == STOP
    assert books.bar(row(FLAT_BAR, **thin), HOLD).units[0] == 0
    books = open_books(latency=1, stop_loss=0.05)
    books.bar(row(FLAT_BAR), buy(0.5))
    assert books.bar(row((0, 0, -6, 0)), buy(0.5)).exits[0] == STOP
    assert books.bar(row(FLAT_BAR), HOLD).units[0] == 0


def test_under_close_the_gap_is_met():
    after = open_books(fill="close", **BRACKETS).bar(row((-8, 0, -9, 0)), buy(1.0))
    assert (after.exits[0], after.equity) == (STOP, near(9_200))


@pytest.mark.parametrize("side", [1, -1])
def test_trailing(side):
    books = entered(side, trailing=0.05)

    def bar(opening, high, low, close):
        turned = (opening, high, low, close) if side > 0 else (-opening, -low, -high, -close)
        return row(turned)

    # The best of 120 (80) is not yet known to the stop of its own bar.
    assert books.bar(bar(0, 20, -4, 0), HOLD).exits[0] == NONE
    assert books.best[0] == near(100 + 20 * side)
    after = books.bar(bar(18, 18, 13, 18), HOLD)  # the stop is 6 (4) away from the best
    assert after.exits[0] == STOP
    assert after.equity == near(10_000 + 100 * (14 if side > 0 else 16))


def test_a_fixed_stop_nearer_than_the_trailing_one_holds():
    books = entered(stop_loss=0.03, trailing=0.05)
    assert books.bar(row((0, 1, -3, 0)), HOLD).equity == near(9_700)


def test_levels_are_whole_ticks():
    # Stop 94.6 and target 107.7 of a long in ticks of 0.5: 94.5 and 108; of a short 105.5, 92
    ticked = {"tick_size": 0.5, "stop_loss": 0.054, "take_profit": 0.077}
    assert entered(1, **ticked).bar(row((0, 0, -6, 0)), HOLD).equity == near(10_000 - 550)
    assert entered(1, **ticked).bar(row((0, 9, 0, 0)), HOLD).equity == near(10_000 + 800)
    assert entered(-1, **ticked).bar(row((0, 6, 0, 0)), HOLD).equity == near(10_000 - 550)
    assert entered(-1, **ticked).bar(row((0, 0, -9, 0)), HOLD).equity == near(10_000 + 800)


def test_after_a_fill_inside_the_bar_the_target_looks_at_the_close_only():
    # Bought at 95 on the way down; the high of 106 may have been before. Target 104.5.
    after = open_books(**BRACKETS).bar(row((0, 6, -6, 4)), buy(1.0, limit=[-0.05]))
    assert after.exits[0] == NONE
    after = open_books(**BRACKETS).bar(row((0, 6, -6, 5)), buy(1.0, limit=[-0.05]))
    assert (after.exits[0], after.equity) == (TARGET, near(10_950))
    after = open_books(**BRACKETS).bar(row((0, 6, -10, 5)), buy(1.0, limit=[-0.05]))
    assert (after.exits[0], after.equity) == (STOP, near(10_000 - 475))


def test_after_a_fill_inside_the_bar_the_trail_begins_at_the_close():
    books = open_books(trailing=0.1)
    books.bar(row((0, 6, -6, -3)), buy(1.0, limit=[-0.05]))
    assert books.best[0] == near(97)


# Initial margin


def test_initial_margin_scales_what_is_added():
    # 20 % of 80,000 would be 16,000: 50,000 can be carried
    after = open_books(initial=0.2).bar(row(FLAT_BAR), buy(8.0))
    assert after.units[0] == near(500)
    in_lots = open_books(initial=0.2, lot_size=30.0).bar(row(FLAT_BAR), Order(lots=[20]))
    assert in_lots.units[0] == 16 * 30


def test_initial_margin_with_a_flip_of_one_asset_and_another_held():
    # 100 of A and 100 of B at 100, margin 50 %: 10,000, all of the equity, is bound.
    books = open_books(2, initial=0.5)
    books.bar(row(FLAT_BAR, FLAT_BAR), Order(exposure=[1.0, 1.0]))
    # A opens at 120: equity 12,000. Sell 300: 100 are closed; B binds 5,000, so of the 200 * 120
    # * 50 % = 12,000 only 7,000 is there: 7/12 of 200 are sold short.
    bar = row((20, 20, 20, 20), FLAT_BAR)
    after = books.bar(bar, Order(exposure=[-3.0, 0.0]))
    assert after.units[0] == near(-200 * 7 / 12)
    assert after.units[1] == near(100)


def test_without_margin_to_spare_one_may_still_reduce():
    books = entered(2.0, initial=0.5)
    after = books.bar(row((-21, -21, -21, -21)), buy(-0.5))
    # 5,800 of equity, and 150 units at 79 bind 5,925
    assert after.units[0] == near(150)
    assert books.bar(row(FLAT_BAR), buy(0.1)).units[0] == near(150)


# Liquidation

MARGIN = {"initial": 0.2, "maintenance": 0.1}


def test_liquidation_inside_the_bar():
    # 500 at 100, cash -40,000. Free: 500 p - 40,000 - 50 p = 0 at p = 88.888...
    rules = {"liquidation_fee": 0.005, "commission_rate": 0.001, "commission_per_unit": 0.01}
    books = entered(5.0, **rules, **MARGIN)
    cash = -40_000 - 55  # 0.1 % of 50,000 and 500 times 0.01
    price = -cash / 450
    after = books.bar(row((0, 5, -15, 3)), HOLD)
    assert after.exits[0] == LIQUIDATION
    assert after.equity == near(500 * price * (1 - 0.006) - 5 + cash)
    assert entered(5.0, **MARGIN).bar(row((0, 5, -11.1, 3)), HOLD).exits[0] == NONE


def test_liquidation_of_a_short():
    # -400 at 100, cash 50,000: 50,000 - 440 p = 0 at 113.6363...
    after = entered(-4.0, **MARGIN).bar(row((0, 15, 0, 3)), HOLD)
    assert (after.exits[0], after.equity) == (LIQUIDATION, near(50_000 - 400 * 50_000 / 440))


def test_a_gap_is_liquidated_at_the_open_and_the_order_is_void():
    books = entered(5.0, **MARGIN)
    after = books.bar(row((-15, 0, -15, 0)), buy(-5.0))
    assert (after.exits[0], after.filled[0]) == (LIQUIDATION, 0)
    assert after.equity == near(10_000 - 500 * 15)
    assert books.bar(row(FLAT_BAR), HOLD).units[0] == 0


def test_a_new_position_can_be_liquidated_in_its_own_bar():
    after = open_books(**MARGIN).bar(row((0, 5, -15, 3)), buy(5.0))
    assert after.equity == near(500 * 40_000 / 450 - 40_000)


def test_cross_margin_with_a_stop_on_the_way():
    # A: 300 at 100 with a stop at 95; B: 200 at 100; equity 10,000, cash -40,000. Half way down
    # (A -5 of -10, B -10 of -20) A leaves at 95: cash -11,500. Then 180 p_B = 11,500 at 63.888...,
    # below the low of 80: nothing happens to B.
    def two(stop_loss):
        books = open_books(2, stop_loss=stop_loss, maintenance=0.1)
        books.bar(row(FLAT_BAR, FLAT_BAR), Order(exposure=[3.0, 2.0]))
        return books.bar(row((0, 0, -10, 0), (0, 0, -20, -5)), Order(exposure=[np.nan] * 2))

    saved = two([0.05, 0.5])
    assert list(saved.exits) == [STOP, NONE]
    assert saved.equity == near(-11_500 + 200 * 95)
    # Without the stop: 0.9 * (300 (100 - 10 x) + 200 (100 - 20 x)) = 40,000 at x = 5/7 * (7/9)
    # since 45,000 - 6,300 x = 40,000: x = 50/63. Both are closed there.
    both = two([0.5, 0.5])
    way = 50 / 63
    assert list(both.exits) == [LIQUIDATION, LIQUIDATION]
    assert both.equity == near(300 * (100 - 10 * way) + 200 * (100 - 20 * way) - 40_000)
    # A stop at 91, at 0.9 of the way, comes too late.
    assert list(two([0.09, 0.5]).exits) == [LIQUIDATION, LIQUIDATION]


def test_a_stop_and_then_a_liquidation_in_one_bar():
    # A leaves at 99, at a tenth of the way; B: 400 at 100 fall by 30 %.
    # Cash -60,000 + 29,700 = -30,300; 360 p = 30,300 at 84.1666...
    books = open_books(2, stop_loss=[0.01, 0.9], maintenance=0.1)
    books.bar(row(FLAT_BAR, FLAT_BAR), Order(exposure=[3.0, 4.0]))
    after = books.bar(row((0, 0, -10, 0), (0, 0, -30, 0)), Order(exposure=[np.nan] * 2))
    assert list(after.exits) == [STOP, LIQUIDATION]
    assert after.equity == near(400 * 30_300 / 360 - 30_300)


def test_no_target_saves_from_liquidation():
    after = entered(5.0, take_profit=0.01, **MARGIN).bar(row((0, 5, -15, 3)), HOLD)
    assert after.exits[0] == LIQUIDATION


# Following another engine


def test_a_close_call_is_followed_and_any_other_difference_refused():
    def stopped(low, **seen):
        books = entered(**BRACKETS)
        return books.bar(row((0, 0, low, 0)), HOLD, {("stop", 0): False}).exits[0]

    assert stopped(-5 - 1e-6) == NONE
    with pytest.raises(AssertionError, match=r"bar 1, asset 0: stop: the books say True"):
        stopped(-5.1)
