"""Bars out of ticks: each once, from quotes that can be believed, whatever the clocks do."""

import math
import random
import time
from datetime import UTC, datetime

import pytest

from jaxtrade.live.bar_builder import GRACE_NS, BarBuilder, start_of
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import Bar, Tick
from jaxtrade.live.limits import GuardLimits
from jaxtrade.specs import JaxtradeError

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
START = int(datetime(2024, 3, 1, 12, tzinfo=UTC).timestamp()) * SECOND


class Feed:
    """Ticks of one symbol into a builder, on a clock that a test may put wrong."""

    def __init__(self, *, at_ns: int = START, **options):
        self.clock = SimulatedClock(at_ns)
        self.builder = BarBuilder(("X",), **{"bar_seconds": 60, **options})
        self.builder.begin(at_ns)
        self.bars: list[Bar] = []

    def tick(self, price: float = 100.0, *, late_ns: int = 0, spread: float = 0.02, **changes):
        known = {
            "at_ns": self.clock.wall_ns() - late_ns,
            "symbol": "X",
            "bid": price - spread / 2,
            "ask": price + spread / 2,
        }
        self._keep(self.builder.add(Tick(**{**known, **changes}), self.clock.steady_ns()))

    def wait(self, seconds: float):
        """Let time pass, and the deadlines in it."""
        end = self.clock.steady_ns() + round(seconds * SECOND)
        while (due := self.builder.due_ns) is not None and due <= end:
            self.clock.advance(max(due - self.clock.steady_ns(), 0))
            self._keep(*self.builder.close_due(self.clock.steady_ns()))
            assert self.builder.due_ns != due
        self.clock.advance(end - self.clock.steady_ns())

    def run(self, seconds: float, price: float = 100.0):
        """A tick each second."""
        for _ in range(round(seconds)):
            self.tick(price)
            self.wait(1)

    def _keep(self, *bars: Bar | None):
        self.bars += [bar for bar in bars if bar is not None]

    @property
    def starts(self) -> list[int]:
        """Of the bars so far, in minutes since the start."""
        return [(bar.start_s - START // SECOND) // 60 for bar in self.bars]


def test_a_bar_by_hand():
    feed = Feed(at_ns=START)
    for price in (100.0, 100.02, 99.99, 100.01):
        feed.tick(price, volume=2.5)
        feed.wait(15)
    assert feed.bars == []
    feed.tick(100.03)
    assert feed.bars == [
        Bar(
            at_ns=START + 60 * SECOND,
            symbol="X",
            start_s=START // SECOND,
            seconds=60,
            open=100.0,
            high=100.02,
            low=99.99,
            close=100.01,
            volume=10.0,
            context=(("spread", pytest.approx(0.02 / 100.01)),),
        )
    ]


@pytest.mark.parametrize(("price", "close"), [("bid", 99.99), ("mid", 100.0), ("ask", 100.01)])
def test_bars_of_bid_or_ask_and_of_counted_ticks(price, close):
    feed = Feed(price=price, counts_ticks=True)
    feed.run(61)
    assert (feed.bars[0].close, feed.bars[0].volume) == (pytest.approx(close), 60.0)


def test_a_bar_ends_when_its_time_is_over_also_without_a_tick():
    feed = Feed()
    feed.tick()
    assert feed.builder.due_ns == 60 * SECOND + GRACE_NS
    feed.wait(61.9)
    assert feed.bars == []
    feed.wait(0.1)
    assert (feed.starts, feed.bars[0].at_ns) == ([0], START + 62 * SECOND)
    assert feed.builder.due_ns is None
    feed.wait(600)
    assert feed.starts == [0]
    feed.tick()  # nothing in between: no bars, as in a file
    feed.wait(100)
    assert feed.starts == [0, 11]


def test_stragglers_count_where_their_bar_is_open_and_nowhere_else():
    feed = Feed()
    feed.run(59, 100.0)
    feed.clock.advance(SECOND // 2)
    feed.tick(100.05)
    feed.tick(100.03, late_ns=SECOND)  # before the last: no close, though within high and low
    feed.wait(1)
    feed.tick(100.0)
    feed.tick(99.9, late_ns=SECOND)
    assert (feed.bars[0].close, feed.bars[0].high) == (100.05, 100.05)
    assert feed.builder.refused == {"late": 1}
    feed.run(70)
    assert feed.bars[1].low == 100.0
    feed.tick(late_ns=10 * SECOND)
    assert feed.builder.refused == {"late": 2}
    feed.tick(late_ns=-10 * SECOND)
    assert feed.builder.refused == {"late": 2, "from the future": 1}
    assert feed.builder.jumps == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"bid": 0.0},
        {"bid": -1.0},
        {"bid": math.nan},
        {"ask": math.nan},
        {"ask": math.inf},
        {"bid": 100.2},  # crossed
        {"volume": -1.0},
        {"volume": math.nan},
    ],
)
def test_what_is_no_quote_is_refused_and_counted(changes):
    feed = Feed()
    feed.tick(**changes)
    assert (feed.builder.refused, feed.builder.due_ns) == ({"no quote": 1}, None)
    feed.tick(symbol="Y")
    assert feed.builder.refused["another symbol"] == 1


def test_a_spike_needs_a_second_tick():
    rng = random.Random(0)
    feed = Feed()
    for _ in range(3_000):  # deviation of 1e-4
        feed.tick(100.0 * (1 + rng.gauss(0, 5e-5)))
        feed.wait(0.01)
    assert feed.builder.refused == {}
    feed.tick(103.0)
    assert feed.builder.refused == {"unconfirmed": 1}
    feed.tick(100.0)
    feed.tick(97.0)
    feed.tick(103.0)  # another one is no confirmation
    feed.tick(100.0)
    assert feed.builder.refused == {"unconfirmed": 3}
    feed.tick(103.0)
    feed.tick(103.01)
    assert feed.builder.refused == {"unconfirmed": 4}
    feed.wait(100)
    assert (feed.bars[0].high, feed.bars[0].close) == (103.01, 103.01)
    assert feed.bars[0].low > 99.9


def test_how_far_a_spike_is_away_is_a_setting():
    feed = Feed(limits=GuardLimits(spike_deviations=1e6))
    for price in (100.0, 103.0):
        feed.tick(price)
    assert feed.builder.refused == {}
    feed.builder.limits = GuardLimits(spike_deviations=2.0)
    feed.tick(100.0)
    assert feed.builder.refused == {"unconfirmed": 1}


def test_what_is_normal_is_learnt_from_any_start():
    rng = random.Random(0)
    feed = Feed()
    for _ in range(500):  # moves a hundred times what is thought at first
        feed.tick(100.0 * (1 + rng.gauss(0, 1e-2)), spread=0)
        feed.wait(0.01)
    assert feed.builder.refused["unconfirmed"] < 20


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 37 * SECOND, -24 * HOUR])
@pytest.mark.parametrize("second", [0, 29, 57])
def test_a_clock_that_jumps_makes_no_bar_twice_and_leaves_none_out(jump, second):
    feed = Feed()
    feed.run(3 * 60 + second)
    feed.clock.jump(jump)
    feed.run(5 * 60)
    assert (feed.builder.jumps, feed.builder.correction_ns) == (1, pytest.approx(jump, abs=SECOND))
    feed.clock.jump(-jump)
    feed.run(5 * 60)
    assert (feed.builder.jumps, abs(feed.builder.correction_ns) < SECOND) == (2, True)
    assert feed.starts == list(range(len(feed.bars)))
    assert len(feed.bars) >= 12
    assert sum(feed.builder.refused.values()) <= 14


def test_a_burst_of_late_ticks_is_no_jump():
    feed = Feed()
    feed.run(30)
    feed.clock.advance(8 * SECOND)
    for tenths in range(80, 0, -1):  # what had queued up comes at once
        feed.tick(late_ns=tenths * SECOND // 10)
    feed.run(60)
    assert (feed.builder.jumps, feed.starts) == (0, [0])


def test_summer_time_is_no_event():
    begins = int(datetime(2024, 3, 31, 0, 30, tzinfo=UTC).timestamp()) * SECOND
    feed = Feed(at_ns=begins, bar_seconds=900)
    feed.run(3_601)
    starts = [datetime.fromtimestamp(bar.start_s, UTC).strftime("%H:%M") for bar in feed.bars]
    assert starts == ["00:30", "00:45", "01:00", "01:15"]


def test_a_bar_with_a_gap_in_its_ticks_does_not_come():
    feed = Feed(at_ns=START + 20 * SECOND)  # begins within a bar
    feed.run(150)
    assert feed.starts == [1]
    feed.builder.begin(feed.clock.wall_ns())  # a new connection, again within a bar
    feed.run(100)
    assert feed.starts == [1, 3]
    assert feed.builder.refused == {"part of a bar": 2}


def test_a_new_connection_believes_the_stamps_and_still_repeats_no_bar():
    feed = Feed()
    feed.run(185)
    feed.clock.jump(-HOUR)
    feed.builder.begin(feed.clock.wall_ns())
    feed.run(300)
    assert feed.starts == [0, 1, 2]
    assert feed.builder.refused["late"] == 300
    feed.clock.jump(HOUR)
    feed.builder.begin(feed.clock.wall_ns())
    feed.run(125)
    assert feed.starts == [0, 1, 2, 9]


def test_starts_of_bars():
    monday = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    assert start_of(monday + 3 * 86_400 + 7, 7 * 86_400) == monday
    assert start_of(monday - 1, 7 * 86_400) == monday - 7 * 86_400
    assert start_of(monday + 86_399, 86_400) == monday
    assert start_of(monday + 7_199, 3_600) == monday + 3_600


def test_what_bars_cannot_be_made_of():
    with pytest.raises(JaxtradeError, match=r"bar_seconds is 7000: give a divisor"):
        BarBuilder(("X",), bar_seconds=7_000)
    with pytest.raises(JaxtradeError, match=r"unknown price of bars 'last'"):
        BarBuilder(("X",), bar_seconds=60, price="last")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_bars_move_forward_and_are_sound(seed):
    rng = random.Random(seed)
    feed = Feed(bar_seconds=rng.choice([1, 5, 60]))
    price = 100.0
    for _ in range(2_000):
        event = rng.random()
        price *= 1 + rng.gauss(0, 1e-4)
        if event < 0.001:
            feed.clock.jump(rng.choice([-HOUR, HOUR, 5 * SECOND]))
        elif event < 0.002:
            feed.builder.begin(feed.clock.wall_ns())
        odd = rng.choice([price, price * 3, math.nan, 0.0]) if event > 0.98 else price
        feed.tick(odd, late_ns=rng.choice([0, 0, 0, 1, SECOND, 3 * SECOND]))
        feed.wait(rng.expovariate(2))
    starts = [bar.start_s for bar in feed.bars]
    assert starts == sorted(set(starts))
    assert len(starts) > 5
    for bar in feed.bars:
        assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
        assert bar.high < 2 * bar.low


def test_a_tick_costs_little():
    symbols = tuple(f"S{number}" for number in range(20))
    builder = BarBuilder(symbols, bar_seconds=1)
    builder.begin(START)
    ticks = [
        Tick(
            at_ns=START + number * 20_000,
            symbol=symbols[number % 20],
            bid=100 + (number * 7 % 11) * 1e-3,
            ask=100.02 + (number * 7 % 11) * 1e-3,
        )
        for number in range(20_000)
    ]
    times = []
    for part in range(10):
        chunk = ticks[part * 2_000 : (part + 1) * 2_000]
        started = time.perf_counter_ns()
        for tick in chunk:
            builder.add(tick, tick.at_ns - START)
        times.append((time.perf_counter_ns() - started) / len(chunk))
    print(f"{min(times):.0f} ns a tick")
    assert min(times) < 10_000  # about 1000 here; ten times for a busy machine
