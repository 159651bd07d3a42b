"""From a configuration to what a run works with: market, spans, environment, agent."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxtrade import agents, features
from jaxtrade.envs import EnvParams, Exposure, Levels, Trading, make
from jaxtrade.envs.actions import Actions
from jaxtrade.experiments.config import Config, DataConfig, EnvConfig
from jaxtrade.market import Market
from jaxtrade.spans import Span, Spans, require_rows, split
from jaxtrade.specs import FeatureSpec, JaxtradeError
from jaxtrade.synthetic import make_market


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What a run works with.

    The normaliser is fitted on the training span; `train`, `validation` and `test` are the
    environment's parameters on their spans, the last two one episode over all of it.
    """

    config: Config
    market: Market
    spans: Spans
    env: Trading
    agent: Any
    train: EnvParams
    validation: EnvParams
    test: EnvParams


def build_setup(config: Config) -> Setup:
    """Load the data and make everything a run needs.

    Raises:
        JaxtradeError: a bad file, too few rows, unknown features or hyperparameters, or limits
            that an exported policy does not know.
    """
    agent = agents.make(config.agent.name, **config.agent.hyperparameters)
    market = load_market(config.data)
    spec = features.resolve(
        config.env.features, market.spec, window=config.env.window, clip=config.env.clip
    )
    spans = make_spans(config, market, spec)
    env, train = make(
        config.env.id,
        market=market,
        features=spec,
        actions=chosen_actions(config.env),
        **span_options(config, spans.train, normaliser=None),
    )
    agents.require_plain_account(env, train)
    later = {
        name: env.params(market, **span_options(config, span, normaliser=train.normaliser))
        for name, span in (("validation", spans.validation), ("test", spans.test))
    }
    return Setup(
        config=config,
        market=market,
        spans=spans,
        env=env,
        agent=agent,
        train=train,
        **later,
    )


def load_market(data: DataConfig) -> Market:
    """The market that a configuration names, with what it joins."""
    if data.kind == "synthetic":
        return make_market(seed=data.seed, num_bars=data.num_bars)
    assert data.path is not None
    market = Market.load(data.path, symbol=data.symbol, bar_seconds=data.bar_seconds)
    for join in data.join:
        market = market.join(
            Path(join.path), name=join.name, columns=join.columns, max_age_days=join.max_age_days
        )
    return market


def make_spans(config: Config, market: Market, spec: FeatureSpec) -> Spans:
    """Training, validation and test rows; what one observation reaches back lies between them."""
    reach = features.lookback(spec)
    shares = config.data.fractions
    needed = reach + 1 + round((config.env.episode_steps + 1) / shares[0])
    require_rows(
        market,
        needed,
        f"a lookback of {reach} rows and training episodes of {config.env.episode_steps} steps "
        f"in {shares[0]:.0%} of the rest",
    )
    return split(market.num_bars, fractions=shares, embargo=reach, first=reach)


def chosen_actions(env: EnvConfig) -> Actions | None:
    """The kind of actions, None for the environment's own."""
    if env.exposure is not None:
        return Exposure(*env.exposure)
    return None if env.levels is None else Levels(env.levels)


def span_options(config: Config, span: Span, *, normaliser: Any) -> dict[str, Any]:
    """Options of `Trading.params` for one span: for training if `normaliser` is None."""
    return {
        "first": span.first,
        "last": span.last,
        "episode_steps": config.env.episode_steps if normaliser is None else None,
        "normaliser": normaliser,
        "costs": config.env.costs.given(),
        "limits": config.env.limits,
        "no_trade_band": config.env.no_trade_band,
        "rewards": config.env.weights,
    }


def other_market(setup: Setup, config: Config) -> tuple[Market, EnvParams]:
    """Another market, or the same under other costs and limits, for the policy of a run.

    The environment's parameters cover it from the first full lookback to its end, features
    normalised as in the run's training.

    Raises:
        JaxtradeError: a setting that the policy is bound to was changed, or bars do not fit.
    """
    bound = ("id", "window", "levels", "exposure", "rewards", "features", "clip")
    changed = [
        name for name in bound if getattr(config.env, name) != getattr(setup.config.env, name)
    ]
    if changed or config.agent != setup.config.agent:
        raise JaxtradeError(
            f"{'env.' + changed[0] if changed else 'agent'}: the policy was trained with another "
            "value: change data, costs, limits or no_trade_band only"
        )
    market = load_market(config.data)
    first = features.lookback(setup.env.features)
    require_rows(market, first + 2, f"a lookback of {first} rows")
    span = Span(first, market.num_bars - 1)
    normaliser = setup.train.normaliser
    return market, setup.env.params(market, **span_options(config, span, normaliser=normaliser))
