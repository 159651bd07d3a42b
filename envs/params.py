"""The parameters of market environments, and how markets become them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment
from numpy.typing import NDArray

from jaxtrade import rewards as reward_terms
from jaxtrade.costs import Costs, make_costs
from jaxtrade.envs.episodes import possible_starts
from jaxtrade.envs.tapes import market_tape
from jaxtrade.features import Normaliser, fit, lookback, normalise, raw_table
from jaxtrade.market import Market
from jaxtrade.rules import Rules, make_rules
from jaxtrade.spans import require_rows
from jaxtrade.specs import HARD_LIMITS, FeatureSpec, JaxtradeError, RiskLimits
from jaxtrade.tape import Tape


@flax.struct.dataclass(kw_only=True)
class EnvParams(environment.EnvParams):
    """What an experiment varies; the market is un-batched (`in_axes=None`), one copy for all.

    table: f32[T, A * F], feature rows normalised with `normaliser`; tape: what the rules know of
    each bar; first, last: i32[], rows the episodes may use: decisions at first .. last - 1;
    starts, ends: i32[S], the row at which an episode may begin and the last it may use, one pair
    drawn for each episode (None: any row from first such that it fits);
    max_steps_in_episode: i32[]; rules: see `rules.Rules`; limits: f32[5] of `specs.HARD_LIMITS`
    or, where another is set, f32[10] of `specs.LIMIT_FIELDS`; caps: f32[A], largest exposure of
    each asset, or None;
    no_trade_band, minimum_order: f32[], smallest change of exposure that is traded, and smallest
    order (None: any); rewards: weights and rates of the reward's terms; bars_per_year: f32[];
    tags: i32[T], regimes of the rows, or None.
    """

    table: jax.Array
    normaliser: Normaliser
    tape: Tape
    first: jax.Array
    last: jax.Array
    rules: Rules
    limits: jax.Array
    no_trade_band: jax.Array
    rewards: reward_terms.RewardParams
    bars_per_year: jax.Array
    starts: jax.Array | None = None
    ends: jax.Array | None = None
    caps: jax.Array | None = None
    minimum_order: jax.Array | None = None
    tags: jax.Array | None = None


class Choices(Protocol):
    """The static choices of an environment that its parameters follow."""

    features: FeatureSpec
    terms: tuple[str, ...]
    num_assets: int

    @property
    def name(self) -> str:
        """The registered name."""


def make_params(
    env: Choices,
    market: Market | Sequence[Market],
    *,
    first: int | None = None,
    last: int | None = None,
    episode_steps: int | None = 256,
    normaliser: Normaliser | None = None,
    costs: Costs | Mapping[str, float] | None = None,
    rules: Rules | None = None,
    limits: RiskLimits | None = None,
    caps: Any = None,
    no_trade_band: float = 0.05,
    minimum_order: float | None = None,
    rewards: Mapping[str, float] | None = None,
    reward_decay: float | Mapping[str, float] = 0.01,
    spread_from_data: bool = False,
    flat_at_session_end: bool = False,
    market_weights: Sequence[float] | None = None,
    tags: Sequence[NDArray[np.integer]] | None = None,
    only_tags: Sequence[int] | None = None,
) -> EnvParams:
    """The parameters for the rows first .. last of a market, or for several markets.

    `first` is by default the first row with a full lookback, `last` the market's last,
    `episode_steps` None one episode over all of them, `normaliser` fitted on just these rows.
    `costs` is short for `rules=make_rules(costs=costs)`; as a mapping it replaces some of the
    environment's own rates. `rewards` weighs the terms.

    Of several markets, of unequal length, all rows are used; each episode is drawn from all of
    them, or from each market as often as its share of `market_weights`. `tags` are regimes i32[T]
    for each market; with `only_tags` an episode begins in one of these.

    Raises:
        JaxtradeError: another number of assets, too few rows, or a number out of range.
    """
    markets = [market] if isinstance(market, Market) else list(market)
    if costs is not None and rules is not None:
        raise JaxtradeError("costs is short for rules=make_rules(costs=costs): give one of them")
    if isinstance(costs, Mapping):
        costs = make_costs(**costs)
    rules = rules or make_rules(costs=costs)
    if not markets:
        raise JaxtradeError(f"{env.name} needs a market, the list is empty")
    for one in markets:
        _check_market(env, one, markets[0])
    _check_number("no_trade_band", no_trade_band)
    _check_number("minimum_order", minimum_order or 0.0)
    _check_shapes(rules, caps, env.num_assets)
    names, weights = reward_terms.make_rewards(
        dict.fromkeys(env.terms, 1.0) if rewards is None else rewards, reward_decay
    )
    if names != env.terms:
        raise JaxtradeError(
            f"rewards are {', '.join(names)}, {env.name} has {', '.join(env.terms)}"
        )

    spans = _spans(env, markets, first, last, episode_steps)
    raws = [raw_table(env.features, one) for one in markets]
    offsets = np.cumsum([0, *(one.num_bars for one in markets)])
    placed = [(a + o, b + o) for (a, b), o in zip(spans, offsets[:-1].tolist(), strict=True)]
    fitted = _fitted(raws, spans) if normaliser is None else normaliser
    if fitted.mean.shape != raws[0].shape[2:]:
        raise JaxtradeError(
            f"the normaliser has {fitted.mean.size} columns, the features have {raws[0].shape[2]}"
        )
    raw = raws[0] if len(raws) == 1 else jnp.concatenate(raws)
    tag_rows = _tags(markets, tags, only_tags)
    starts = ends = None
    _check_weights(market_weights, len(markets))
    if len(markets) > 1 or only_tags is not None:
        allowed = None if only_tags is None else np.isin(tag_rows, np.asarray(only_tags))
        starts, ends = possible_starts(placed, episode_steps, market_weights, allowed)
        if not len(starts):
            raise JaxtradeError(f"no row may begin an episode: none has a tag of {only_tags}")
    steps = max(b - a for a, b in spans) if episode_steps is None else episode_steps
    limit = limits or RiskLimits()
    is_full = limit.vector()[len(HARD_LIMITS) :] != RiskLimits().vector()[len(HARD_LIMITS) :]
    vector = limit.vector() if is_full else limit.hard_vector()
    return EnvParams(
        max_steps_in_episode=jnp.int32(steps),
        table=normalise(fitted, raw, env.features.clip).reshape(len(raw), -1),
        normaliser=fitted,
        tape=market_tape(
            markets,
            rules,
            has_spread=spread_from_data,
            has_sessions=flat_at_session_end,
            has_volatility=is_full,
        ),
        first=jnp.int32(placed[0][0]),
        last=jnp.int32(placed[-1][1]),
        starts=None if starts is None else jnp.asarray(starts),
        ends=None if ends is None else jnp.asarray(ends),
        rules=rules,
        limits=jnp.asarray(vector, jnp.float32),
        caps=None if caps is None else jnp.asarray(caps, jnp.float32),
        no_trade_band=jnp.float32(no_trade_band),
        minimum_order=None if minimum_order is None else jnp.float32(minimum_order),
        rewards=weights,
        bars_per_year=jnp.float32(markets[0].spec.bars_per_year),
        tags=None if tags is None else jnp.asarray(tag_rows, jnp.int32),
    )


def _fitted(raws: Sequence[jax.Array], spans: Sequence[tuple[int, int]]) -> Normaliser:
    """The normaliser of just the rows in the spans."""
    if len(raws) == 1:
        return fit(raws[0], *spans[0])
    rows = jnp.concatenate([raw[a : b + 1] for raw, (a, b) in zip(raws, spans, strict=True)])
    return fit(rows, 0, len(rows) - 1)


def _spans(
    env: Choices,
    markets: Sequence[Market],
    first: int | None,
    last: int | None,
    episode_steps: int | None,
) -> list[tuple[int, int]]:
    """First and last row to use of each market."""
    if len(markets) > 1 and (first is not None or last is not None):
        raise JaxtradeError("first and last are rows of one market: cut several with Market.rows")
    spans = []
    for market in markets:
        begin = lookback(env.features) if first is None else first
        end = market.num_bars - 1 if last is None else last
        steps = end - begin if episode_steps is None else episode_steps
        _check_episodes(market, env.features.window, begin, end, steps)
        spans.append((begin, end))
    return spans


def _tags(
    markets: Sequence[Market],
    tags: Sequence[NDArray[np.integer]] | None,
    only_tags: Sequence[int] | None,
) -> NDArray[np.integer]:
    """The tags of all rows, one market after the other; none if there are none."""
    if tags is None:
        if only_tags is not None:
            raise JaxtradeError("only_tags chooses among tags: give these too")
        return np.zeros(0, np.int32)
    lengths, rows = [len(tag) for tag in tags], [market.num_bars for market in markets]
    if lengths != rows:
        raise JaxtradeError(f"tags have {lengths} rows, the markets {rows}: give one tag a row")
    return np.concatenate(list(tags))


def _check_market(env: Choices, market: Market, like: Market) -> None:
    """Raise JaxtradeError unless a market is of the environment's kind."""
    if market.num_assets != env.num_assets:
        raise JaxtradeError(
            f"{env.name} trades {_assets(env.num_assets)}, {market.name()} has {market.num_assets}"
        )
    if market.spec.bar_seconds != like.spec.bar_seconds:
        raise JaxtradeError(
            f"{market.name()} has bars of {market.spec.bar_seconds} s, {like.name()} of "
            f"{like.spec.bar_seconds} s: resample one"
        )


def _check_shapes(rules: Rules, caps: Any, num_assets: int) -> None:
    """Raise JaxtradeError unless what differs by asset is there for each."""
    leaves = jax.tree_util.tree_leaves_with_path(rules)
    named = [(jax.tree_util.keystr(path).lstrip("."), np.shape(leaf)) for path, leaf in leaves]
    for name, shape in [*named, ("caps", np.shape(0.0 if caps is None else caps))]:
        if shape not in ((), (num_assets,)):
            raise JaxtradeError(
                f"{name} has {shape[-1]} values for {_assets(num_assets)}: give one, or one each"
            )
    if caps is not None and not bool((np.asarray(caps) > 0).all()):
        raise JaxtradeError(f"caps are {caps}: give each asset a largest exposure above 0")


def _check_weights(weights: Sequence[float] | None, num_markets: int) -> None:
    """Raise JaxtradeError unless there is a share for each market, and one above 0."""
    if weights is None:
        return
    shares = np.asarray(weights, np.float64)
    is_share = bool((np.isfinite(shares) & (shares >= 0)).all()) and bool(shares.sum() > 0)
    if shares.shape != (num_markets,) or not is_share:
        raise JaxtradeError(
            f"market_weights are {weights} for {num_markets} markets: give each 0 or more, "
            "not all 0"
        )


def _check_number(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise JaxtradeError(f"{name} is {value}: give 0 to below 1")


def _check_episodes(market: Market, window: int, first: int, last: int, steps: int) -> None:
    """Raise JaxtradeError unless episodes of `steps` fit into the rows first .. last."""
    if not window - 1 <= first < last < market.num_bars:
        require_rows(market, first + 2, f"a window of {window} and its lookback")
        raise JaxtradeError(
            f"rows {first} to {last}: give {window - 1} <= first < last < {market.num_bars}"
        )
    if steps < 1:
        raise JaxtradeError(f"an episode of {steps} steps: give 1 or more")
    if last - first < steps:
        require_rows(market, first + steps + 1, f"episodes of {steps} steps after row {first}")
        raise JaxtradeError(f"episodes of {steps} steps do not fit into rows {first} to {last}")


def _assets(count: int) -> str:
    return "1 asset" if count == 1 else f"{count} assets"
