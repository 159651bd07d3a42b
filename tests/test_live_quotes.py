import math

import numpy as np
import pytest

from jaxtrade.live.events import Bar, Tick
from jaxtrade.live.limits import GuardLimits
from jaxtrade.live.quotes import Quotes

SECOND = 10**9


def see(quotes, bid, ask, seconds=0, epoch=1):
    tick = Tick(at_ns=0, symbol="A", bid=bid, ask=ask)
    return quotes.see(tick, steady_ns=seconds * SECOND, epoch=epoch)


def close(quotes, price, seconds=0, epoch=1):
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    bar = Bar(at_ns=0, symbol="A", start_s=0, seconds=60, **prices)
    return quotes.close(bar, steady_ns=seconds * SECOND, epoch=epoch)


def walked(number=200, seed=0):
    """Quotes of a random walk, and its last middle."""
    quotes, generator = Quotes(GuardLimits()), np.random.default_rng(seed)
    middle = 100.0
    for second in range(number):
        middle *= 1 + 1e-3 * generator.standard_normal()
        half = 0.01 * math.exp(0.2 * generator.standard_normal())
        assert see(quotes, middle - half, middle + half, second)
    return quotes, middle


def test_a_quote_is_kept_with_when_it_came_and_when_it_changed():
    quotes = Quotes(GuardLimits())
    assert quotes.known == {}
    assert see(quotes, 99.0, 101.0, 1)
    assert see(quotes, 99.0, 101.0, 2)
    known = quotes.known["A"]
    assert (known.middle, known.seen_ns, known.changed_ns) == (100.0, 2 * SECOND, SECOND)
    assert see(quotes, 99.0, 101.5, 3, epoch=2)
    assert (known.changed_ns, known.epoch) == (3 * SECOND, 2)
    assert known.middle == 100.25


def test_a_first_quote_that_is_bad_is_none():
    quotes = Quotes(GuardLimits())
    assert not see(quotes, math.nan, 100.0)
    assert not see(quotes, 101.0, 100.0)
    assert (quotes.known, quotes.refused) == ({}, 2)


@pytest.mark.parametrize(
    ("bid", "ask", "fault"),
    [
        (math.nan, 100.0, "not a number"),
        (math.inf, math.inf, "not a number"),
        (0.0, 100.0, "not above 0"),
        (-2.0, -1.0, "not above 0"),
        (101.0, 100.0, "crossed"),
    ],
)
def test_a_bad_quote_is_noted_and_the_last_sane_one_stays(bid, ask, fault):
    quotes = Quotes(GuardLimits())
    see(quotes, 99.0, 101.0, 1)
    assert not see(quotes, bid, ask, 2)
    known = quotes.known["A"]
    assert (known.fault, known.middle, known.seen_ns) == (fault, 100.0, SECOND)
    assert see(quotes, 99.0, 101.0, 3)
    assert (known.fault, quotes.refused) == ("", 1)


def test_the_spread_is_about_its_median():
    quotes, middle = walked(2_000)
    assert quotes.known["A"].spread == pytest.approx(0.02 / middle, rel=0.15)
    usual = quotes.known["A"].spread
    see(quotes, middle * 0.99, middle * 1.01)
    assert usual < quotes.known["A"].spread < usual * 1.03  # one wide quote hardly moves it


def test_a_spike_waits_for_a_second_quote_that_says_so():
    quotes, middle = walked()
    known = quotes.known["A"]
    assert known.variance**0.5 == pytest.approx(1e-3, rel=0.3)
    assert see(quotes, middle * 1.005, middle * 1.005)  # five deviations
    assert not see(quotes, middle * 1.05, middle * 1.05)
    assert "nothing has confirmed it" in known.fault
    assert known.middle == pytest.approx(middle * 1.005)
    assert see(quotes, middle, middle)
    assert not see(quotes, middle * 1.05, middle * 1.05)
    assert not see(quotes, middle * 0.95, middle * 0.95)  # says something else
    assert see(quotes, middle * 0.951, middle * 0.951)
    assert known.fault == ""
    assert known.variance**0.5 < 3e-3  # a confirmed spike is no new normal


def test_the_first_quotes_and_small_moves_are_no_spikes():
    quotes = Quotes(GuardLimits())
    assert all(see(quotes, 100.0 + 10 * i, 100.0 + 10 * i) for i in range(10))
    still = Quotes(GuardLimits())
    assert all(see(still, 100.0, 100.0) for _ in range(50))
    assert see(still, 100.09, 100.09)
    assert not see(still, 101.0, 101.0)


def test_closes_count_where_a_connection_brings_no_quotes():
    quotes = Quotes(GuardLimits())
    assert close(quotes, 100.0, 60)
    assert close(quotes, 150.0, 120)  # bars may leap
    known = quotes.known["A"]
    assert (known.middle, known.seen_ns, known.is_close) == (150.0, 120 * SECOND, True)
    assert not close(quotes, math.nan, 180)
    assert (known.fault, known.middle) == ("not a number", 150.0)
    assert see(quotes, 99.0, 101.0, 181)
    assert not close(quotes, 120.0, 240)
    assert (known.middle, known.seen_ns, known.is_close) == (100.0, 181 * SECOND, False)
    assert close(quotes, 120.0, 300, epoch=2)
    assert (known.middle, known.epoch) == (120.0, 2)
