"""The paper account of a run: its market, its rules, its rows."""

from decimal import Decimal

import numpy as np
import pytest

from jaxtrade.bars import relative_bars
from jaxtrade.experiments.config import compose
from jaxtrade.experiments.paper import run_market, venue
from jaxtrade.experiments.rundir import RunDirectory
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_faults import Faults
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.events import Bar, Tick
from jaxtrade.rules import make_rules
from tests.small import SMALL
from tests.test_live_paper import MARKET, follow, ledger_alone, run, venue_under


@pytest.mark.parametrize(
    ("kind", "levels"),
    [
        ("stock", (-1.0, 0.0, 1.0)),
        pytest.param("trading", (-1.0, 0.0, 1.0), marks=pytest.mark.slow),
        pytest.param("etf", (-0.8, -0.1, 0.3, 1.0), marks=pytest.mark.slow),
        pytest.param("perpetual", (-3.0, 0.0, 1.0, 3.0), marks=pytest.mark.slow),
    ],
)
def test_a_run_on_paper_is_the_environments_account(kind, levels, tmp_path) -> None:
    config = compose([*SMALL, f"env={kind}", f"output_dir={tmp_path}"])
    folder = RunDirectory.create(config, kind).folder
    market, env_params = run_market(folder)
    first, last = int(env_params.first), int(env_params.last)
    wishes = np.repeat(np.random.default_rng(1).choice(levels, last - first), 2)[: last - first]
    clock = SimulatedClock()
    replay = Replay(venue(market, env_params))
    broker = PaperBroker(replay, clock=clock, path=tmp_path / "paper.db")
    rules = env_params.rules
    lot = None if rules.lot_size is None else Decimal(str(rules.lot_size))
    band = float(env_params.no_trade_band)
    accounts, fills = run(follow(broker, wishes, lot=lot, band=band, symbol=market.spec.symbols[0]))
    got = [each.equity for each in accounts[1:]]
    assert len(got) == last - first and len(fills) > 30
    np.testing.assert_allclose(got, ledger_alone(env_params, wishes), rtol=1e-6)
    end_s = int(market.timestamps[last].astype(np.int64)) + market.spec.bar_seconds
    assert clock.wall_ns() == end_s * 1_000_000_000


def test_bars_are_bit_for_bit_what_the_market_holds() -> None:
    place = venue_under(make_rules())
    bars = Replay(place).history(MARKET.spec.symbols[0], 10_000, before_row=MARKET.num_bars)
    prices = np.asarray([[bar.open, bar.high, bar.low, bar.close] for bar in bars])
    np.testing.assert_array_equal(relative_bars(prices[1:], prices[:-1, 3]), MARKET.bars[1:, 0])
    assert [bar.start_s for bar in bars] == MARKET.timestamps.astype(np.int64).tolist()
    np.testing.assert_array_equal([bar.volume for bar in bars], MARKET.volume[:, 0])
    names = tuple(name for name, _ in bars[7].context)
    assert names == MARKET.spec.context
    np.testing.assert_array_equal([value for _, value in bars[7].context], MARKET.context[7])


def test_quotes_are_told_before_their_bars_and_may_be_bad() -> None:
    async def play():
        faults = Faults(bad_quotes=2, quote_kind="zero")
        broker = PaperBroker(
            Replay(venue_under(make_rules())),
            clock=SimulatedClock(),
            with_quotes=True,
            faults=faults,
        )
        await broker.connect()
        told = []
        async for event in broker.events():
            if isinstance(event, Bar | Tick):
                told.append(event)
            if len(told) == 8:
                return told

    told = run(play())
    assert [type(event) for event in told] == [Tick, Bar] * 4
    assert [(tick.bid, tick.ask) for tick in told[:4:2]] == [(0.0, 0.0)] * 2
    for tick, bar in zip(told[4::2], told[5::2], strict=True):
        assert tick.at_ns == bar.at_ns
        np.testing.assert_allclose((tick.bid, tick.ask), (bar.close * 0.9999, bar.close * 1.0001))
