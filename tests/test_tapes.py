"""From a market to the tape: each column by hand, and what is known of a bar before it."""

import numpy as np
import pandas as pd
import pytest

from jaxtrade.costs import make_costs
from jaxtrade.envs.tapes import MEMORY_BARS, market_tape, nights
from jaxtrade.impact import make_impact
from jaxtrade.market import Market
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from jaxtrade.tape import COLUMNS, make_tape
from tests.markets import random_frame

PLAIN = make_rules()
IMPACT = make_rules(impact=make_impact("square_root"), participation=0.1)
SWAP = make_rules(costs=make_costs(swap_long=-1.0, swap_short=-1.0))


def market_of(stamps, closes=100.0, *, symbol="M", **columns):
    """Bars that open at the last close."""
    closes = np.broadcast_to(np.asarray(closes, float), len(stamps))
    opens = np.concatenate([[100.0], closes[:-1]])
    prices = {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes)}
    frame = pd.DataFrame({"timestamp": stamps, **prices, "close": closes, "volume": 10.0})
    return Market.from_frame(frame.assign(**columns), symbol=symbol)


def hours(start, count):
    return pd.date_range(start, periods=count, freq="h", tz="UTC")


def days(start, count):
    return pd.date_range(start, periods=count, freq="D", tz="UTC")


def columns_of(market, rules=PLAIN, **options):
    """The columns of one asset, f32[T] by name."""
    tape = market_tape([market], rules, **options)
    rows = np.asarray(tape.rows)[:, 0]
    np.testing.assert_array_equal(rows[:, len(tape.names) :], 0)
    return dict(zip(tape.names, rows[:, : len(tape.names)].T, strict=True))


# By hand


def test_without_options_there_are_prices_and_the_calendar():
    market = market_of(hours("2020-01-06 22:00", 4), [110, 99, 99, 108.9])
    columns = columns_of(market)
    assert tuple(columns) == COLUMNS[:6]
    np.testing.assert_allclose(columns["close"], [0.1, -0.1, 0, 0.1], atol=1e-6)
    np.testing.assert_allclose(columns["low"], [0, -0.1, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(columns["new_day"], [1, 0, 1, 0])
    np.testing.assert_allclose(columns["years"][1:], 1 / (24 * 365.25), rtol=2e-3)


def test_a_spread_is_halved_and_a_pair_is_as_it_is():
    stamps = hours("2020-01-06", 4)
    quoted = market_of(stamps, spread=[0.02, 0.04, 0, 0.06])  # of 100, as in a file
    one = columns_of(quoted, has_spread=True)
    for name in ("half_spread_open", "half_spread_close"):
        np.testing.assert_allclose(one[name], [1e-4, 2e-4, 0, 3e-4], rtol=1e-6)
    pair = {"half_spread_open": [1e-4] * 4, "half_spread_close": [2e-4] * 4}
    two = columns_of(market_of(stamps, spread=9.0, **pair), has_spread=True)
    for name, half in pair.items():
        np.testing.assert_allclose(two[name], half, rtol=1e-6)
    assert "half_spread_open" not in columns_of(market_of(stamps, spread=2e-4))


def test_a_dividend_is_over_the_close_before_its_bar_and_funding_as_it_is():
    market = market_of(days("2020-01-06", 3), [200, 100, 50], dividend=[0, 3, 0], funding=1e-4)
    columns = columns_of(market)
    np.testing.assert_allclose(columns["dividend"], [0, 3 / 200, 0], rtol=1e-6)
    np.testing.assert_allclose(columns["funding"], [1e-4] * 3, rtol=1e-6)


def test_prices_and_values_are_of_the_close_before():
    market = market_of(days("2020-01-06", 3), [200, 100, 50], volume=[10, 20, 40])
    columns = columns_of(market, make_rules(lot_size=1.0, participation=0.1))
    np.testing.assert_allclose(columns["price"], [100, 200, 100], rtol=1e-6)
    np.testing.assert_allclose(columns["volume_value"], [1_000, 4_000, 4_000], rtol=1e-6)


def test_averages_are_of_the_bars_before():
    market = market_of(days("2020-01-06", 4), [110, 121, 121, 121], volume=[10, 20, 40, 0])
    columns = columns_of(market, IMPACT)
    keep = 1 - 2 / (MEMORY_BARS + 1)
    traded = np.array([1_000, 20 * 110, 40 * 121, 0])
    squares = np.log(np.array([1.1, 1.1, 1.0, 1.0])) ** 2
    for name, values, root in (("average_value", traded, 1), ("volatility", squares, 0.5)):
        means = []
        for row in range(3):
            weights = keep ** np.arange(row, -1, -1)
            means.append((weights * values[: row + 1]).sum() / weights.sum())
        np.testing.assert_allclose(columns[name][1:], np.array(means) ** root, rtol=1e-5)


@pytest.mark.parametrize("name", ["average_value", "volatility", "price"])
def test_what_is_known_of_a_bar_does_not_know_it(name):
    rules = make_rules(impact=make_impact("square_root"), tick_size=0.01)
    frame = random_frame(60)
    other = frame.copy()
    other.loc[40:, ["open", "high", "low", "close"]] *= 1.1
    other.loc[40:, "volume"] += 10_000
    before, after = (columns_of(Market.from_frame(each), rules)[name] for each in (frame, other))
    np.testing.assert_array_equal(before[:41], after[:41])
    assert (before[41:] != after[41:]).all()


# Nights: 17:00 in New York is 22:00 UTC in winter, 21:00 in summer


def charged(market):
    """The bars with a rollover, by the hour of their end: {(date, hour): nights}."""
    count = nights(market)
    ends = pd.DatetimeIndex(market.timestamps) + pd.Timedelta(hours=1)
    return {
        (end.strftime("%m-%d"), end.hour): int(n) for end, n in zip(ends, count, strict=True) if n
    }


def test_a_week_of_hours_has_seven_nights_three_of_them_on_wednesday():
    week = {("01-06", 22): 1, ("01-07", 22): 1, ("01-08", 22): 3, ("01-09", 22): 1}
    market = market_of(hours("2020-01-06", 7 * 24))
    assert charged(market) == week | {("01-10", 22): 1}


def test_the_clock_change_moves_the_hour():
    spring = charged(market_of(hours("2020-03-06", 4 * 24)))
    assert spring == {("03-06", 22): 1, ("03-09", 21): 1}
    autumn = charged(market_of(hours("2020-10-30", 4 * 24)))
    assert autumn == {("10-30", 21): 1, ("11-02", 22): 1}


def test_a_gap_over_the_weekend_charges_what_it_passes():
    stamps = hours("2020-01-10 00:00", 20).append(hours("2020-01-13 00:00", 24))
    # Friday's bars end at 20:00, before the rollover: it is charged with Monday's first bar.
    assert charged(market_of(stamps)) == {("01-13", 1): 1, ("01-13", 22): 1}


def test_days_count_their_own_night():
    market = market_of(days("2020-01-06", 14))  # from a Monday
    np.testing.assert_array_equal(nights(market)[1:], [1, 3, 1, 1, 0, 0, 1, 1, 3, 1, 1, 0, 0])
    weekdays = market_of(pd.bdate_range("2020-01-06", periods=10, tz="UTC"))
    np.testing.assert_array_equal(nights(weekdays)[1:], [1, 3, 1, 1, 1, 1, 3, 1, 1])


def test_nights_are_on_the_tape_where_swap_is_paid():
    columns = columns_of(market_of(days("2020-01-06", 4)), SWAP)
    np.testing.assert_array_equal(columns["nights"], [0, 1, 3, 1])
    assert "price" in columns


# Sessions


@pytest.mark.parametrize(("fill", "shift"), [("next_open", 0), ("next_close", 0), ("close", 1)])
def test_a_session_ends_before_a_break(fill, shift):
    stamps = hours("2020-01-06 14:00", 5).append(hours("2020-01-07 14:00", 3))
    stamps = stamps.append(hours("2020-01-07 20:00", 2))  # a break of three hours is no end
    ends = np.zeros(10)
    ends[[4, 9]] = 1
    expected = np.concatenate([np.zeros(shift), ends[: 10 - shift]])
    rules = make_rules(fill=fill)
    found = columns_of(market_of(stamps), rules, has_sessions=True)["session_end"]
    np.testing.assert_array_equal(found, expected)


# Together, and bad input


def test_markets_follow_one_another_on_the_tape():
    markets = [Market.from_frame(random_frame(n, seed=n), symbol=f"M{n}") for n in (40, 30)]
    together = market_tape(markets, IMPACT)
    alone = [market_tape([market], IMPACT) for market in markets]
    assert together.names == alone[0].names
    rows = np.concatenate([tape.rows for tape in alone])
    np.testing.assert_array_equal(together.rows, rows)


def test_a_tape_s_row_is_its_bar():
    generator = np.random.default_rng(0)
    given = {name: generator.random((5, 2)) for name in COLUMNS}
    shared = ("years", "new_day", "session_end")
    given |= {name: generator.random(5) for name in shared}
    tape = make_tape(given, 2)
    bar = tape.bar(3)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(bar, name), np.float32(given[name][3]), name)
    assert tape.num_assets == 2


def test_bad_input():
    stamps = days("2020-01-06", 4)
    cases = {
        "no column spread, nor half_spread_open and half_spread_close": lambda: market_tape(
            [market_of(stamps)], PLAIN, has_spread=True
        ),
        "half_spread_open is -0.0001: give 0 or more": lambda: market_tape(
            [market_of(stamps, half_spread_open=-1e-4, half_spread_close=0.0)],
            PLAIN,
            has_spread=True,
        ),
        "impact and participation need a volume": lambda: market_tape(
            [market_of(stamps, volume=0)], IMPACT
        ),
        "dividend is in some of the markets only": lambda: market_tape(
            [market_of(stamps, dividend=1.0), market_of(stamps)], PLAIN
        ),
        "bars of a day or more have no sessions": lambda: market_tape(
            [market_of(stamps)], PLAIN, has_sessions=True
        ),
    }
    for message, make in cases.items():
        with pytest.raises(JaxtradeError, match=message) as error:
            make()
        assert "\n" not in str(error.value)
