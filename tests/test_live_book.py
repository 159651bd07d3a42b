import itertools
import json
from decimal import Decimal

import jax
import numpy as np
import pytest

from jaxtrade import ledger
from jaxtrade.brackets import make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.live.book import Book, share_of_difference
from jaxtrade.live.events import PositionAdjusted
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from tests.live_books import (
    COSTS,
    DEPOSIT,
    HOUR,
    booked,
    funded,
    moved,
    random_bars,
    stepper,
    trade,
)
from tests.live_events import decided


@pytest.mark.parametrize("fill", ["next_open", "next_close", "close"])
@pytest.mark.parametrize("stops", [False, True])
def test_a_book_of_the_ledgers_fills_tells_what_the_ledger_tells(fill, stops):
    brackets = make_brackets(stop_loss=0.02, take_profit=0.03) if stops else None
    rules = make_rules(costs=make_costs(**COSTS), fill=fill, brackets=brackets)
    step, num_bars = stepper(rules), 500
    bars = random_bars(num_bars, seed=3)
    generator = np.random.default_rng(4)
    targets = generator.choice([-0.8, -0.3, 0.0, 0.0, 0.5, np.nan, np.nan, np.nan], (num_bars, 2))
    targets[np.arange(0, num_bars, 50)] = 0.0

    account, book = ledger.open_account(2, rules), funded(DEPOSIT)
    price = np.array([400.0, 1.1])
    booked(book, price, 0)
    equity, worst = DEPOSIT, 0.0
    for t in range(num_bars):
        start_s = (t + 1) * HOUR
        new_day = np.float32(start_s % 86_400 == 0)
        account, vector, move = step(
            account, targets[t].astype(np.float32), bars[t].astype(np.float32), new_day
        )
        vector, move, log_equity = jax.device_get((vector, move, account.log_equity))
        trade(book, move, price, equity)
        price = price * (1 + bars[t, :, 3])
        marked = booked(book, price, start_s)
        equity = DEPOSIT * np.exp(np.float64(log_equity))
        assert marked.equity == pytest.approx(equity, rel=1e-6)
        assert marked.reward == pytest.approx(np.log1p(np.float64(move.gain)), abs=1e-7)
        np.testing.assert_array_equal(marked.vector[4:6], vector[4:6])
        worst = max(worst, np.abs(marked.vector - vector).max())
        equity = marked.equity
    assert worst < 1e-6


def test_a_book_by_hand():
    book = funded(1_000)
    booked(book, (10.0, 5.0), 0)
    book.fill("A", Decimal(50), Decimal(10))
    book.pay(Decimal(2))
    book.fill("B", Decimal(-40), Decimal(5))
    marked = booked(book, (11.0, 5.5), HOUR)
    assert marked.equity == 1_000 - 2 + 50 - 20
    growth = 0.028
    np.testing.assert_allclose(
        marked.vector,
        [550 / 1_028, -220 / 1_028, 0.05, -0.02, 1, 1, 0, growth, growth],
        rtol=1e-6,
    )
    assert marked.reward == pytest.approx(np.log(1.028))
    # Half of A is sold at 12, B is turned round at 5: it counts from its own price on.
    book.fill("A", Decimal(-25), Decimal(12))
    book.fill("B", Decimal(60), Decimal(5))
    marked = booked(book, (10.0, 6.0), 2 * HOUR)
    assert marked.equity == 1_028 + (25 - 25) + (20 + 20)
    np.testing.assert_allclose(
        marked.vector[2:6], [0.05 + (25 - 25) / 1_028, 20 / 1_028, 2, 1], rtol=1e-6
    )


def test_what_a_position_has_earned_counts_from_between_bid_and_ask():
    book = funded(1_000)
    booked(book, (10.0,), 0, ("A",))
    book.fill("A", Decimal(50), Decimal("10.1"), 10.0)
    marked = booked(book, (11.0,), HOUR, ("A",))
    assert marked.equity == 1_000 + 50 - 5
    assert marked.vector[1] == pytest.approx(0.05)
    book.fill("A", Decimal(-20), Decimal("11.9"), 12.0)
    marked = booked(book, (11.0,), 2 * HOUR, ("A",))
    assert marked.equity == pytest.approx(1_045 + 18)
    assert marked.vector[1] == pytest.approx(0.05 + 20 / 1_045)


def test_a_day_starts_at_midnight_and_a_drawdown_at_the_peak():
    book = funded(100)
    book.fill("A", Decimal(1), Decimal(100))
    vectors = [
        booked(book, (price,), start_s, ("A",)).vector[-3:]
        for price, start_s in ((100.0, 0), (110.0, 82_800), (99.0, 86_400), (88.0, 90_000))
    ]
    np.testing.assert_allclose(vectors[1], [0, 0.1, 0.1], atol=1e-7)
    np.testing.assert_allclose(vectors[2], [0.1, 99 / 110 - 1, -0.1], atol=1e-7)
    np.testing.assert_allclose(vectors[3], [0.2, 88 / 110 - 1, 88 / 99 - 1], atol=1e-7)


def test_a_deposit_is_no_profit_and_interest_is():
    book = funded(100)
    book.fill("A", Decimal(1), Decimal(50))
    booked(book, (50.0,), 0, ("A",))
    book.apply(moved(900))
    marked = booked(book, (60.0,), HOUR, ("A",))
    assert marked.equity == 1_010
    np.testing.assert_allclose(marked.vector, [60 / 1_010, 0.01, 2, 0, 0.01, 0.01], rtol=1e-6)
    book.apply(moved("10.1", "carry"))
    marked = booked(book, (60.0,), 2 * HOUR, ("A",))
    assert marked.reward == pytest.approx(np.log(1.01))
    np.testing.assert_allclose(marked.vector[1], 0.01, rtol=1e-6)


def test_a_withdrawal_is_no_loss():
    book = funded(100)
    booked(book, (50.0,), 0, ("A",))
    book.apply(moved(-60))
    marked = booked(book, (50.0,), HOUR, ("A",))
    assert marked.equity == 40
    assert (marked.vector == 0).all()


def test_a_corrected_fill_is_as_if_it_had_been_right():
    right, wrong = funded(), funded()
    for book in (right, wrong):
        book.fill("A", Decimal(5), Decimal(10))
        booked(book, (11.0,), 0, ("A",))
    right.fill("A", Decimal(2), Decimal("10.5"))
    wrong.fill("A", Decimal(3), Decimal("10.4"))
    wrong.correct("A", (Decimal(3), Decimal("10.4"), 0.0), (Decimal(2), Decimal("10.5"), 0.0))
    assert right.cash == wrong.cash
    marks = [booked(book, (12.0,), HOUR, ("A",)) for book in (right, wrong)]
    np.testing.assert_allclose(marks[0].vector, marks[1].vector, rtol=1e-6)
    before = right.to_json()
    right.fill("A", Decimal(4), Decimal(12), 12.5)
    right.correct("A", (Decimal(4), Decimal(12), 12.5), (Decimal(0), Decimal(12), 0.0))
    assert right.to_json() == before


def test_the_order_of_fills_and_fees_changes_no_cash_and_no_quantity():
    fills = [
        (Decimal("0.1"), Decimal("1e-12")),
        (Decimal("-123456789.123456789"), Decimal("98765.4321")),
        (Decimal("0.000000001"), Decimal("0.1")),
        (Decimal("77"), Decimal("3.3333333333333333333333")),
    ]
    found = set()
    for order in itertools.permutations(fills):
        book = funded()
        for quantity, price in order:
            book.fill("A", quantity, price)
            book.pay(quantity.copy_abs() * Decimal("0.0000001"))
        found.add((book.cash, book.quantity("A")))
    assert len(found) == 1
    for quantity, price in fills:
        book.fill("A", quantity.copy_negate(), price)
        book.pay(-quantity.copy_abs() * Decimal("0.0000001"))
    assert (book.cash, book.holdings) == (1_000, {})


def test_an_adjustment_is_booked_at_its_price_and_changes_no_equity():
    book = funded()
    book.apply(
        PositionAdjusted(
            at_ns=0, owner="a", symbol="A", quantity=Decimal(-3), price=Decimal(20), reason="found"
        )
    )
    assert book.quantity("A") == -3
    assert book.value({"A": 20.0}) == 1_000
    assert book.gross({"A": 20.0}) == 60
    assert book.value({}) == 1_000  # at its last price


def test_ruin_is_booked_as_the_ledger_books_it_and_is_remembered():
    book = funded(100)
    book.fill("A", Decimal(2), Decimal(100))
    booked(book, (100.0,), 0, ("A",))
    marked = booked(book, (40.0,), HOUR, ("A",))
    assert marked.is_ruined
    assert marked.equity == -20
    assert marked.vector[0] == 0
    assert marked.reward == pytest.approx(np.log(ledger.MIN_GROWTH))
    assert np.isfinite(booked(book, (41.0,), 2 * HOUR, ("A",)).vector).all()
    assert book.preview(("A",), (90.0,), 3 * HOUR).is_ruined


def test_a_preview_changes_nothing_and_the_equity_of_a_bar_wins():
    book = funded(100)
    book.fill("A", Decimal(1), Decimal(50))
    before = book.to_json()
    book.preview(("A",), (70.0,), HOUR)
    assert book.to_json() == before
    book.apply(decided(HOUR, agent="a", symbols=("A",), closes=(50.0,), equity=101.0))
    assert (book.capital, book.last_return) == (101.0, pytest.approx(0.01))
    assert book.preview(("A",), (50.0,), 2 * HOUR).vector[-1] == pytest.approx(100 / 101 - 1)


def test_a_book_reads_back_as_itself():
    book = funded("1000.000000000000000000000000000000000001")
    book.fill("A", Decimal("-0.3"), Decimal("0.1234567890123456789012345678901234567890"))
    booked(book, (np.float64(0.2),), HOUR, ("A",))
    book.fill("B", Decimal(7), Decimal(3))
    assert Book.from_json(json.loads(json.dumps(book.to_json()))) == book


@pytest.mark.parametrize(("close", "equity"), [(np.nan, 100.0), (50.0, np.inf)])
def test_a_bar_that_is_no_number_leaves_all_as_it_is(close, equity):
    book = funded(100)
    book.fill("A", Decimal(1), Decimal(50))
    booked(book, (50.0,), 0, ("A",))
    before = book.to_json()
    book.apply(decided(HOUR, agent="a", symbols=("A",), closes=(close,), equity=equity))
    assert book.to_json() == before
    assert np.isnan(book.preview(("A",), (np.nan,), HOUR).vector).any()


def test_closes_that_are_not_one_per_symbol_are_refused():
    with pytest.raises(JaxtradeError, match="1 closes for the symbols A, B"):
        funded().preview(("A", "B"), (1.0,), 0)


def shares(difference, quantities=(1, 3)):
    books = {"": funded(10), "a": funded(1_000), "b": funded(3_000)}
    for name, quantity in zip("ab", quantities, strict=True):
        books[name].fill("A", Decimal(quantity), Decimal(100))
    return share_of_difference(books, 4_010 + difference, {"A": 100.0})


def test_a_difference_goes_where_positions_are():
    assert shares(8.0) == {"a": 2, "b": 6}
    assert shares(-8.0, (-1, 0)) == {"a": -8}
    assert shares(8.0, (0, 0)) == {"a": 2, "b": 6}  # by equity
    assert sum(shares(1.0, (1, 2)).values()) == 1


def test_a_large_difference_is_a_deposit_and_none_is_nothing():
    assert shares(41.0) == {"": 41}
    assert shares(-500.0) == {"": -500}
    assert shares(1e-7) == {}
    assert shares(float("nan")) == {}
    assert share_of_difference({}, 5.0, {}) == {"": 5}
