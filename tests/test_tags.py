import numpy as np
import pandas as pd
import pytest

from jaxtrade.assemble import combine
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError
from jaxtrade.tags import REGIMES, regimes, session_ends
from tests.markets import random_frame


def market_of(returns, *, stamps=None, **options):
    close = 100 * np.cumprod(1 + np.asarray(returns, float))
    if stamps is None:
        stamps = pd.date_range("2020-01-06", periods=len(close), freq="h")
    frame = pd.DataFrame({"timestamp": pd.to_datetime(stamps), "close": close, "volume": 1})
    frame["open"] = frame["high"] = frame["low"] = frame["close"]
    return Market.from_frame(frame, **options)


def at(*stamps, bar_seconds=60):
    return market_of(np.full(len(stamps), 0.001), stamps=stamps, bar_seconds=bar_seconds)


# regimes


def test_regimes_by_hand():
    market = market_of([0, 0.01, -0.02, -0.005, 0.03, 0.01, 0.01, 0.01])
    # mean squares of two, in 1e-4:  0.5  2.5  2.1  4.6  5.0  1.0  1.0
    # their medians so far:          0.5  1.5  2.1  2.3  2.5  2.3  2.1
    names = [REGIMES[tag] for tag in regimes(market, lookback_bars=2)[1:]]
    assert names == [
        *("calm, up", "volatile, down", "calm, down", "volatile, up", "volatile, up"),
        *("calm, up", "calm, up"),
    ]
    tags = regimes(market, lookback_bars=4)
    assert tags.dtype == np.int32
    assert np.all(tags[:3] == -1)
    assert np.all(tags[3:] >= 0)


def test_regimes_against_a_loop_and_without_look_ahead():
    market = Market.from_frame(random_frame(300, freq="h"))
    tags = regimes(market, lookback_bars=20)
    returns, sizes = np.log1p(market.bars[:, 0, 3].astype(float)), []
    for row in range(19, 300):
        last = returns[row - 19 : row + 1]
        sizes.append(np.sqrt(np.mean(last**2)))
        assert tags[row] == 2 * (sizes[-1] > np.median(sizes)) + (last.sum() > 0)
        if row % 40 == 0:
            np.testing.assert_array_equal(
                regimes(market.rows(0, row), lookback_bars=20), tags[: row + 1]
            )
    assert set(tags) == {-1, 0, 1, 2, 3}


def test_of_several_assets_the_mean_return_counts():
    frames = [random_frame(200, seed=seed) for seed in (1, 2)]
    both = combine([Market.from_frame(each, symbol=f"A{i}") for i, each in enumerate(frames)])
    mean = np.expm1(np.log1p(both.bars[:, :, 3].astype(float)).mean(axis=1))
    one = regimes(market_of(mean), lookback_bars=20)
    np.testing.assert_array_equal(regimes(both, lookback_bars=20)[20:], one[20:])


# session_ends


def test_a_session_ends_with_its_date_or_before_a_pause():
    market = at(
        *("2020-01-06T14:30", "2020-01-06T14:31", "2020-01-06T14:50"),  # 18 minutes without
        *("2020-01-06T16:00", "2020-01-06T23:59"),  # pauses
        *("2020-01-07T00:00", "2020-01-07T00:01"),  # a date, and the market's end
    )
    assert session_ends(market).tolist() == [False, False, True, True, True, False, True]
    assert session_ends(market, pause_bars=10).tolist()[1]
    assert session_ends(market, pause_bars=1e9).tolist() == [*[False] * 4, True, False, True]
    tokyo = session_ends(market, pause_bars=1e9, time_zone="Asia/Tokyo")
    assert tokyo.tolist() == [False, False, True, False, False, False, True]


def test_a_pause_of_just_the_length_ends_nothing():
    market = at("2020-01-06T14:30", "2020-01-06T15:01", "2020-01-06T15:33")
    assert session_ends(market, pause_bars=30).tolist() == [False, True, True]


def test_days_end_themselves():
    assert session_ends(Market.from_frame(random_frame(20))).all()


def test_real_sessions(data_folder):
    for name, zone in (("SPY_1m", "America/New_York"), ("SPY_1h", "UTC")):
        market = Market.load(data_folder / f"{name}.csv.gz")
        ends = session_ends(market, time_zone=zone)
        assert ends.sum() == len(np.unique(market.day))
        assert np.all(np.diff(market.day)[ends[:-1]] > 0)


def test_what_cannot_be_asked():
    market = at("2020-01-06T14:30", "2020-01-06T14:31", "2020-01-06T14:32")
    for call, message in (
        (lambda: regimes(market, lookback_bars=4), "lookback_bars is 4: give 2 to 3"),
        (lambda: regimes(market, lookback_bars=1), "lookback_bars is 1: give 2 to 3"),
        (lambda: session_ends(market, pause_bars=-1), "pause_bars is -1: give 0 or more"),
        (lambda: session_ends(market, time_zone="Mars"), "no time zone 'Mars': give one like"),
    ):
        with pytest.raises(JaxtradeError, match=message) as error:
            call()
        assert str(error.value).isprintable()
