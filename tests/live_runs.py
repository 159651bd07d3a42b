"""Engines on paper for tests: a bundle that has opinions, a broker on a replay, and the two run."""

import asyncio
import dataclasses
import inspect
from pathlib import Path
from typing import NamedTuple

import pytest

from jaxtrade.envs import EnvParams, make
from jaxtrade.experiments.paper import venue
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.engine import Engine
from jaxtrade.live.events import BarDecided, Event, OrderInitialized
from jaxtrade.live.export import export_policy
from jaxtrade.live.recovery import recover
from jaxtrade.live.run import make_engine
from jaxtrade.live.settings import LiveSettings, from_tree
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec
from jaxtrade.synthetic import make_market
from tests.bundles import fitted, metadata_of, network_policy

SPEC = FeatureSpec(names=("log_return", "rsi"), window=8)
FIRST = 200
"""The first row that is traded: the policy is warm by then."""

BARS = 260
"""Of a world."""


class World(NamedTuple):
    """A market, its rows to trade, and a bundle that trades on nearly every bar."""

    market: Market
    params: EnvParams
    bundle: Path


@dataclasses.dataclass
class Ran:
    """What an engine did: its events in order, and itself as it was at the end."""

    engine: Engine
    events: list[Event]

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def decisions(self) -> list[BarDecided]:
        return self.of(BarDecided)


def small_market(num_bars: int = 320, seed: int = 0) -> Market:
    return make_market(seed=seed, num_bars=num_bars)


def write_bundle(folder: Path, market: Market, *, seed: int = 0, name: str = "policy.onnx") -> Path:
    policy = network_policy(SPEC, fitted(SPEC, market), hidden=(16,), seed=seed)
    symbols, seconds = market.spec.symbols, market.spec.bar_seconds
    metadata = metadata_of(policy, symbols=symbols, bar_seconds=seconds)
    export_policy(folder / name, policy, metadata)
    return folder / name


def params_of(market: Market, first: int = FIRST, **options) -> EnvParams:
    scaling = fitted(SPEC, market)
    _, params = make(
        "Trading-v0",
        market=market,
        features=SPEC,
        normaliser=scaling,
        episode_steps=None,
        first=first,
        **options,
    )
    return params


def make_world(folder: Path, seed: int = 0, symbol: str = "SYNTH") -> World:
    market = small_market(BARS, seed=seed)
    spec = dataclasses.replace(market.spec, symbols=(symbol,))
    market = dataclasses.replace(market, spec=spec)
    bundle = write_bundle(folder, market, seed=seed, name=f"{symbol}.onnx")
    return World(market, params_of(market), bundle)


def settings_of(folder: Path, bundle: Path, **tree) -> LiveSettings:
    tree = {"agents": {"main": {"model": str(bundle)}}, "broker": {"kind": "paper"}} | tree
    return from_tree({"name": "test", "folder": str(folder)} | tree)


def paper_of(market: Market, params: EnvParams, **options) -> PaperBroker:
    return PaperBroker(Replay(venue(market, params)), clock=SimulatedClock(), **options)


def run(settings: LiveSettings, broker, *, prepare=None, kept: type[Event] = Event) -> Ran:
    """Run an engine until its data are over; `prepare` sees it before, and events of a kind are
    kept.
    """
    events: list[Event] = []

    def keep(event: Event) -> None:
        if isinstance(event, kept):
            events.append(event)

    with recover(settings.path, clock=broker.clock, run_id="test") as recovered:
        engine = make_engine(settings, recovered, broker)
        engine.account.books.listeners.append(keep)
        if prepare is not None:
            prepare(engine)
        asyncio.run(engine.run())
    return Ran(engine, events)


def after(engine, count, do, kind=object):
    """Do something with the event once the engine has dealt with so many of a kind."""
    deal_with, left = engine.deal_with, count

    async def dealt_with(event):
        nonlocal left
        await deal_with(event)
        if isinstance(event, kind):
            left -= 1
            if left == 0:
                result = do(event)
                if inspect.isawaitable(result):
                    await result

    engine.deal_with = dealt_with


def assert_the_books_agree(ran: Ran, *, rel: float = 1e-9) -> None:
    """Units and cash are the broker's, and no order was sent under another's id."""
    state, broker = ran.engine.account.state, ran.engine.account.broker

    async def ask():
        await broker.connect()
        return await broker.snapshot()

    there = asyncio.run(ask())
    held = {each.symbol: each.quantity for each in there.positions if each.quantity}
    assert {s: p.quantity for s, p in state.positions.items() if p.quantity} == held
    assert sum(float(book.cash) for book in state.books.values()) == pytest.approx(
        there.cash, rel=rel
    )
    sent = [event.cid for event in ran.of(OrderInitialized)]
    assert len(sent) == len(set(sent))
