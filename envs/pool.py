"""Endless data: environments on paths of a synthetic process, drawn anew during training."""

from collections.abc import Callable
from typing import Any

from jaxtrade.envs.params import EnvParams
from jaxtrade.envs.trading import Trading
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic import make_market

Make = Callable[..., tuple[Trading, EnvParams]]
Refresh = Callable[[int], EnvParams]


def make_pool(
    make: Make,
    *,
    kind: str = "embedded",
    num_paths: int = 16,
    num_bars: int = 4_096,
    seed: int = 0,
    process_params: Any = None,
    **options: Any,
) -> tuple[Trading, EnvParams, Refresh]:
    """An environment on a pool of paths, its parameters, and how to draw the pool anew.

    make: a maker, as `make_trading`; kind, process_params: a process of `jaxtrade.synthetic` and
    its parameters; `options` go to the maker. `refresh(iteration)` gives the parameters on other
    paths, of the same shapes, so that nothing is compiled again: pass it to
    `jaxtrade.agents.train`. The same seed and iteration give the same paths. The normaliser stays
    the one fitted on the first pool.

    Raises:
        JaxtradeError: no paths, or what `make_market` and the maker refuse.
    """
    if num_paths < 1:
        raise JaxtradeError(f"num_paths is {num_paths}: give 1 or more")

    def draw(number: int) -> list[Market]:
        first = (seed + number) * num_paths
        return [
            make_market(
                kind=kind, seed=(first + path) % 2**32, num_bars=num_bars, params=process_params
            )
            for path in range(num_paths)
        ]

    env, params = make(draw(0), **options)

    def refresh(iteration: int) -> EnvParams:
        return make(draw(iteration), **{**options, "normaliser": params.normaliser})[1]

    return env, params, refresh
