import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pandas as pd
import pytest

from jaxtrade import features, frames
from jaxtrade.frames import at_frame, split_name
from jaxtrade.indicators import INDICATORS, Indicator
from jaxtrade.live import export
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec
from tests.bundles import (
    assert_decide_alike,
    exported,
    fitted,
    network_policy,
    rows_of,
)
from tests.markets import random_frame

ALL = tuple(INDICATORS)


def seen_bar() -> Indicator:
    """Shows the bars it is given, clock and all."""

    def update(carry, bar):
        rows = [bar.open, bar.high, bar.low, bar.close, bar.volume]
        clock = [jnp.broadcast_to(each, bar.close.shape) for each in bar.clock]
        return carry, jnp.stack([*rows, *clock])

    names = ("open", "high", "low", "close", "volume", "day", "week", "elapsed")
    return Indicator(
        columns=names,
        lookback=1,
        memory=1,
        init=lambda num_assets: jnp.zeros((0, num_assets), jnp.float32),
        update=update,
    )


@pytest.fixture
def bar_seen(monkeypatch):
    monkeypatch.setitem(INDICATORS, "bar", seen_bar())
    return (*ALL, "bar")


def table(market, *names):
    spec = FeatureSpec(names=names, bar_seconds=market.spec.bar_seconds)
    return np.asarray(features.raw_table(spec, market))[:, 0]


def holes(frame, *, seed=0, share=0.15):
    """Bars removed at random: single ones, and stretches that leave out whole slow bars."""
    rng = np.random.default_rng(seed)
    keep = rng.random(len(frame)) > share
    for start in rng.integers(1, len(frame) - 200, 8):
        keep[start : start + rng.integers(5, 200)] = False
    keep[[0, -1]] = True
    return frame[keep].reset_index(drop=True)


def slow_table(frame, rule, frame_seconds, bar_seconds, names):
    """The plain indicators on pandas' slow bars, at the last one over by the end of each bar."""
    rows = frame.set_index("timestamp").resample(rule, label="left", closed="left")
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    slow = Market.from_frame(rows.agg(how).dropna(), bar_seconds=frame_seconds)
    known = slow.timestamps.astype(np.int64) + frame_seconds
    now = frame["timestamp"].to_numpy("datetime64[s]").astype(np.int64) + bar_seconds
    index = np.searchsorted(known, now, side="right") - 1
    return table(slow, *names)[np.maximum(index, 0)], index >= 0


def assert_shows_slow_bars(frame, rule, label, bar_seconds, names):
    market = Market.from_frame(frame, bar_seconds=bar_seconds)
    frame_seconds = split_name(f"x@{label}")[1]
    wanted, is_known = slow_table(frame, rule, frame_seconds, bar_seconds, names)
    got = table(market, *(f"{name}@{label}" for name in names))
    assert is_known.sum() > 50
    scale = np.abs(wanted[is_known]).std(axis=0) + 1e-9

    np.testing.assert_allclose((got - wanted)[is_known] / scale, 0.0, atol=2e-5)
    assert len(np.unique(wanted[is_known][:, 0])) > 20


# Against pandas


@pytest.mark.parametrize(
    ("freq", "bar_seconds", "label", "rule"),
    [
        ("min", 60, "5m", "5min"),
        ("min", 60, "1h", "1h"),
        ("h", 3_600, "1d", "1D"),
        ("D", 86_400, "7d", "W-MON"),
    ],
)
def test_slow_bars_are_those_of_pandas(bar_seen, freq, bar_seconds, label, rule):
    frame = random_frame(2_400, freq=freq, start="2000-01-05 09:23", deviation=1e-3)
    if freq in ("h", "D"):  # on their own boundaries
        frame["timestamp"] = frame["timestamp"].dt.floor(freq)
    assert_shows_slow_bars(holes(frame), rule, label, bar_seconds, bar_seen)


@pytest.mark.parametrize(("label", "rule"), [("5m", "5min"), ("15m", "15min"), ("1h", "1h")])
def test_real_minutes(data_folder, label, rule):
    frame = pd.read_csv(data_folder / "EURUSD_1m.csv.gz", parse_dates=["timestamp"]).iloc[:30_000]
    assert_shows_slow_bars(frame, rule, label, 60, ("rsi", "macd", "ema_50", "volatility"))


def test_frames_of_several_assets_and_lengths_side_by_side():
    frame = holes(random_frame(1_500, freq="min"))
    market = Market.from_frame(frame, bar_seconds=60)
    mirrored = market.replace(bars=-market.bars[..., [0, 2, 1, 3]], volume=market.volume + 7)
    both = market.replace(
        bars=np.concatenate([market.bars, mirrored.bars], axis=1),
        volume=np.concatenate([market.volume, mirrored.volume], axis=1),
    )
    names = ("rsi@1h", "ema_10", "macd@5m", "volatility@1h", "relative_volume@5m")
    spec = FeatureSpec(names=names, bar_seconds=60)
    together = np.asarray(features.raw_table(spec, both))
    for asset, own in enumerate((market, mirrored)):
        np.testing.assert_allclose(together[:, asset], table(own, *names), rtol=2e-5, atol=1e-6)
    for name, column in (("volatility@1h", 4), ("macd@5m", slice(2, 4))):
        alone = table(market, name)
        np.testing.assert_allclose(together[:, 0, column], alone.squeeze(), rtol=2e-5, atol=1e-6)
    assert features.columns(spec) == (
        *("rsi@1h", "ema_10", "macd@5m", "macd_signal@5m", "volatility@1h"),
        *("relative_volume@5m", "volume_known@5m"),
    )
    assert features.groups(spec)[2:4] == ("macd@5m", "macd@5m")


def test_indicators_of_a_frame_share_the_slow_bar_in_the_making():
    def rows(*names):
        return features.init_carry(FeatureSpec(names=names, bar_seconds=60), 1).shape[0]

    apart = rows("rsi@1h") + rows("volatility@1h")
    assert rows("rsi@1h", "volatility@1h") == apart - len(frames._SlowBar._fields)
    assert rows("rsi@1h", "volatility@5m") == apart


# By hand


def steps(minutes, closes, bar_seconds=60, label="5m"):
    """Close and volume of the slow bar shown at each of the bars that start at these minutes."""
    stamps = pd.to_datetime("2020-01-01") + pd.to_timedelta(minutes, unit="min")
    frame = pd.DataFrame({"timestamp": stamps, "close": np.asarray(closes, float)})
    frame["open"] = frame["high"] = frame["low"] = frame["close"]
    market = Market.from_frame(frame.assign(volume=1.0), bar_seconds=bar_seconds)
    return table(market, f"bar@{label}")[:, 3:5].T.tolist()


def test_when_a_slow_bar_completes(bar_seen):
    # the bar at minute 4 completes the first slow bar; 9 is missing, so 10 closes the second;
    # 19 closes the one of 10 and completes its own, 15 to 18 being missing
    close, volume = steps([0, 1, 4, 5, 8, 10, 19, 20], [100, 110, 120, 60, 90, 180, 45, 1])
    np.testing.assert_allclose(close, [0, 0, 0.2, 0.2, 0.2, -0.25, -0.75, -0.75], atol=1e-6)
    assert volume == [0, 0, 3, 3, 3, 2, 1, 1]


@pytest.mark.parametrize("label", ["10m", "1h", "1d", "7d"])
def test_bars_that_start_anywhere_against_a_plain_loop(bar_seen, label):
    length = split_name(f"x@{label}")[1]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        pauses = rng.choice([0, 0, 0, 7, 400, 9_000, 700_000], 150) * rng.random(150)
        starts = 946_900_000 + np.cumsum(120 + pauses.astype(int))
        closes = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(150)))
        last = {}  # by the number of the slow bar, its newest close
        wanted = []
        for start, close in zip(starts, closes, strict=True):
            number = (start + 3 * 86_400) // length
            last[number] = close
            is_over = start + 120 + 3 * 86_400 >= (number + 1) * length
            over = [100.0, 100.0, *(last[n] for n in sorted(last) if n < number or is_over)]
            wanted.append(over[-1] / over[-2] - 1)
        frame = pd.DataFrame({"timestamp": starts.astype("datetime64[s]"), "close": closes})
        frame["open"] = np.concatenate([[100.0], closes[:-1]])
        frame["high"] = frame[["open", "close"]].max(axis=1)
        frame["low"] = frame[["open", "close"]].min(axis=1)
        market = Market.from_frame(frame.assign(volume=1), bar_seconds=120)
        np.testing.assert_allclose(table(market, f"bar@{label}")[:, 3], wanted, atol=1e-6)
        assert len(set(wanted)) > 3


def test_two_completions_in_one_bar_are_both_seen(monkeypatch):
    def update(carry, bar):
        carry = carry + 1.0
        return carry, carry

    count = Indicator(
        columns=("count",), lookback=1, memory=1, init=lambda a: jnp.zeros((1, a)), update=update
    )
    monkeypatch.setitem(INDICATORS, "bar", count)
    frame = random_frame(20, freq="min").iloc[[0, 1, 9, 10, 19]]
    market = Market.from_frame(frame, bar_seconds=60)
    assert table(market, "bar@5m")[:, 0].tolist() == [1, 1, 2, 2, 4]  # 1: the still bar's


def test_bars_off_the_boundary_complete_beyond_it(bar_seen):
    # bars of 2 minutes: the one at 9 ends at 11, and belongs to the slow bar that ends at 10
    stamps, closes = [1, 5, 7, 9, 11, 17, 19], [100, 120, 130, 150, 200, 250, 300]
    close, volume = steps(stamps, closes, bar_seconds=120, label="10m")
    np.testing.assert_allclose(close, [0, 0, 0, 0.5, 0.5, 0.5, 1.0], atol=1e-6)
    assert volume == [0, 0, 0, 4, 4, 4, 3]


def test_a_break_in_the_record_closes_a_slow_bar(bar_seen):
    days = 30 * 24 * 60
    close, volume = steps([0, 1, days + 3, days + 4], [100, 110, 220, 220])
    np.testing.assert_allclose(close, [0, 0, 0.1, 1.0], atol=1e-6)
    assert volume == [0, 0, 2, 2]


def test_bars_that_overlap_are_counted_once(bar_seen):
    close, volume = steps([0, 4, 4.5, 5, 9], [100, 120, 240, 240, 240])
    np.testing.assert_allclose(close, [0, 0.2, 1.0, 1.0, 0.0], atol=1e-6)
    assert volume == [0, 2, 1, 1, 2]


def test_before_the_first_slow_bar_nothing_has_moved():
    market = Market.from_frame(random_frame(30, freq="min"))
    early = table(market, "rsi@1h", "ema_10@1h", "relative_volume@1h", "log_return@1h")
    np.testing.assert_array_equal(early, np.broadcast_to([50, 0, 1, 0, 0], (30, 5)))


# No look-ahead


def test_the_future_leaves_the_past_alone():
    market = Market.from_frame(holes(random_frame(1_000, freq="min")), bar_seconds=60)
    names = (*(f"{name}@15m" for name in ALL), *(f"{name}@1h" for name in ALL))
    before = table(market, *names)
    for row in (1, 200, market.num_bars - 100):
        bars, volume = market.bars.copy(), market.volume.copy()
        bars[row:] += 0.01
        volume[row:] += 100
        after = table(market.replace(bars=bars, volume=volume), *names)
        np.testing.assert_array_equal(before[:row], after[:row])
        assert np.any(before[row:] != after[row:])


def test_an_incomplete_slow_bar_never_shows():
    market = Market.from_frame(random_frame(600, freq="min"), bar_seconds=60)
    before = table(market, *(f"{name}@1h" for name in ALL))
    assert np.all(np.any(before[60:] != before[59:-1], axis=1) == (np.arange(60, 600) % 60 == 59))
    bars = market.bars.copy()
    bars[300:359] *= 3  # of the bars 300 to 359 of an hour
    after = table(market.replace(bars=bars), *(f"{name}@1h" for name in ALL))
    np.testing.assert_array_equal(before[:359], after[:359])
    assert np.any(before[359] != after[359])


# The rest of the way


def test_seconds_from_a_float32_clock_are_exact():
    """Every minute of two weeks, and each second of a stretch, at a frame of their own length."""
    for step, label, count in ((60, "2m", 20_160), (1, "2s", 5_000)):
        stamps = pd.date_range("2020-01-05 23:00", periods=count, freq=f"{step}s")
        frame = pd.DataFrame({"timestamp": stamps, "close": np.arange(count) % 7 + 1.0})
        frame["open"] = frame["high"] = frame["low"] = frame["close"]
        market = Market.from_frame(frame.assign(volume=1.0), bar_seconds=step)
        shown = table(market, f"relative_volume@{label}", f"log_return@{label}")[:, 2]
        assert np.all(shown[2::2] == shown[1:-1:2])
        close = frame["close"].to_numpy()
        np.testing.assert_allclose(shown[3::2], np.log(close[3::2] / close[1:-2:2]), atol=1e-6)


def test_the_start_is_forgotten_after_the_warmup():
    market = Market.from_frame(holes(random_frame(6_000, freq="min")), bar_seconds=60)
    spec = FeatureSpec(names=("rsi@5m", "ema_10@15m", "macd@5m"), bar_seconds=60, window=4)
    full = np.asarray(features.raw_table(spec, market))
    needed = features.warmup_bars(spec)
    scale = full.std(axis=(0, 1))
    for first in (1, 777, 1_500):
        last = first + needed + 1_000
        late = features.raw_table(spec, market.rows(first, last))
        gap = np.abs(late[needed:] - full[first + needed : last + 1]) / scale
        assert gap.max() < 1e-3


def test_the_exported_graph_shows_the_same():
    market = Market.from_frame(holes(random_frame(900, freq="min")), bar_seconds=60)
    spec = FeatureSpec(names=("rsi@5m", "relative_volume@5m"), bar_seconds=60)

    def update(carry, bar, clock):
        seen = features.make_bar(bar[:4], bar[4], jnp.zeros(0, jnp.float32), clock)
        carry, row = features.update(spec, carry, seen)
        return {"next": carry, "row": row}

    carry = np.asarray(features.init_carry(spec, 1))
    shapes = {"carry": carry.shape, "bar": (5, 1), "clock": (3,)}
    graph = export._graph(update, shapes, ["next", "row"])
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    bars = np.concatenate([market.bars, market.volume[..., None]], axis=-1).swapaxes(1, 2)
    rows = []
    for bar, clock in zip(bars, market.clock, strict=True):
        carry, row = session.run(None, {"carry": carry, "bar": bar, "clock": clock})
        rows.append(row)
    table = features.raw_table(spec, market)
    np.testing.assert_allclose(np.reshape(rows, table.shape), table, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_an_exported_policy_sees_the_same():
    market = Market.from_frame(holes(random_frame(1_400, freq="min")), bar_seconds=60)
    names = ("log_return", "rsi@5m", "macd@1h", "relative_volume@5m")
    spec = FeatureSpec(names=names, window=4, bar_seconds=60)
    policy = network_policy(spec, fitted(spec, market), hidden=(8,))
    live = exported(policy)
    assert live.metadata.features == spec
    assert live.metadata.columns[1] == "rsi@5m"
    assert_decide_alike(policy, live, rows_of(market, spec))
    wanted = features.normalise(policy.normaliser, features.raw_table(spec, market), spec.clip)
    np.testing.assert_allclose(live.carry().window, wanted[-4:, 0], atol=1e-4)


def test_one_compilation_for_markets_of_a_shape():
    names = tuple(f"{name}@5m" for name in ALL)
    spec = FeatureSpec(names=names, bar_seconds=60)
    traces = features._scan_table._cache_size()
    for seed in range(2):
        features.raw_table(spec, Market.from_frame(random_frame(321, freq="min", seed=seed)))
    assert features._scan_table._cache_size() == traces + 1


def test_no_implicit_promotion():
    indicator, none = at_frame(INDICATORS["volatility"], 300, 60), jnp.zeros(2, jnp.float32)
    bar = features.make_bar([none] * 4, none, none[:0], jnp.zeros(3, jnp.float32))
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        init = jax.eval_shape(lambda: indicator.init(2))
        carry, shown = jax.eval_shape(indicator.update, init, bar)
    assert (carry.shape, carry.dtype) == (init.shape, jnp.float32)
    assert (shown.shape, shown.dtype) == ((1, 2), jnp.float32)
