"""From a market and plain options to an environment of the `Trading` family and its parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtrade.envs.actions import Actions, Levels
from jaxtrade.envs.params import EnvParams
from jaxtrade.envs.trading import Trading
from jaxtrade.features import DEFAULT_FEATURES, resolve
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec, JaxtradeError


def make_trading(
    market: Market | Sequence[Market],
    *,
    kind: type[Trading] = Trading,
    window: int = 32,
    features: Mapping[str, bool] | FeatureSpec | None = None,
    clip: float = 5.0,
    levels: tuple[float, ...] | None = None,
    actions: Actions | None = None,
    rewards: Mapping[str, float] | None = None,
    history: int = 0,
    debug: bool = False,
    **options: Any,
) -> tuple[Trading, EnvParams]:
    """An environment of the family on a market or several: it and its parameters.

    `features` switches features on and off by name over the default, or is a whole specification,
    which then says window and clip; `levels` is short for `actions=Levels(levels)`; `rewards` are
    weights of reward terms by name; `options` go to `params.make_params`.
    """
    if not isinstance(market, Market) and not market:
        raise JaxtradeError(f"{kind.__name__}-v0 needs a market, the list is empty")
    first = market if isinstance(market, Market) else market[0]
    if not isinstance(features, FeatureSpec):
        switches = {**dict.fromkeys(DEFAULT_FEATURES.names, True), **(features or {})}
        features = resolve(switches, first.spec, window=window, clip=clip)
    if levels is not None and actions is not None:
        raise JaxtradeError("levels is short for actions=Levels(levels): give one of them")
    if levels is not None:
        actions = Levels(levels)
    static: dict[str, Any] = {"features": features, "num_assets": first.num_assets}
    static |= {"history": history, "debug": debug}
    if actions is not None:
        static["actions"] = actions
    if rewards is not None:
        static["terms"] = tuple(rewards)
        options["rewards"] = rewards
    env = kind(**static)
    return env, env.params(market, **options)
