"""Engines on paper for tests: a bundle that has opinions, a broker on a replay, and the two run."""

import asyncio
import dataclasses
from pathlib import Path

from jaxtrade.envs import EnvParams, make
from jaxtrade.experiments.paper import venue
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.engine import Engine
from jaxtrade.live.events import BarDecided, Event
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
