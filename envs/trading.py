"""Trading-v0: one asset, discrete target exposures, fills at the next open."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces

from jaxtrade import ledger, risk
from jaxtrade.costs import Costs, make_costs
from jaxtrade.decision import Observation, observe
from jaxtrade.envs.base import Environment, Info
from jaxtrade.features import (
    Normaliser,
    account_bounds,
    columns,
    fit,
    lookback,
    normalise,
    raw_table,
    resolve,
)
from jaxtrade.market import Market
from jaxtrade.sizing import delta_order
from jaxtrade.spans import require_rows
from jaxtrade.specs import FeatureSpec, JaxtradeError, RiskLimits
from jaxtrade.synthetic import make_market

DEFAULT_FEATURES = FeatureSpec(
    names=("log_return", "rsi", "macd", "ema_10", "ema_50", "volatility", "relative_volume")
)


@flax.struct.dataclass(kw_only=True)
class EnvParams(environment.EnvParams):
    """What an experiment varies; the market is un-batched (`in_axes=None`), one copy for all.

    table: f32[T, F], feature rows normalised with `normaliser`; bars: f32[T, A, 4], relative to
    the close before;
    calendar: f32[T, 2], years since the bar before, and 1 on the first bar of a UTC day;
    first, last: i32[], rows the episodes may use: decisions at first .. last - 1;
    max_steps_in_episode: i32[]; costs: rates; limits: f32[5], see `specs.LIMIT_FIELDS`;
    no_trade_band: f32[], smallest change of exposure that is traded.
    """

    table: jax.Array
    normaliser: Normaliser
    bars: jax.Array
    calendar: jax.Array
    first: jax.Array
    last: jax.Array
    costs: Costs
    limits: jax.Array
    no_trade_band: jax.Array


@flax.struct.dataclass(kw_only=True)
class State:
    """index: i32[], the newest bar seen; time: i32[], steps since the episode's start; seed: u32[],
    from which that start was drawn.
    """

    index: jax.Array
    time: jax.Array
    seed: jax.Array
    account: ledger.Account


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trading(Environment[State, EnvParams]):
    """Trading-v0: choose an exposure at each bar's close; it is filled at the next bar's open.

    Observation: `market` f32[W, F], rows t - W + 1 .. t of the feature table; `account` f32[6],
        exposure, open return, bars held, drawdown, day's return, last return, scaled and clipped.
    Action: i32[], index into `levels`, target exposures as fractions of equity, signed; no such
        index means hold. The risk review bounds the target; the difference to what is held is
        traded if above the band.
    Reward: f32[], the log return of equity after costs and interest.
    Termination: ruin, less than 0.1 % of equity left after a step; the reward is log(0.001).
    Truncation: after `max_steps_in_episode` steps, or at the last row.
    Start: a row drawn uniformly such that the episode fits (the first if none does), flat, with
        equity 1.
    Info: `target` f32[A] and `binding` i32[] of the review, `move` (`ledger.Move`), and what
        `Environment.step` adds.
    Version: 0; rises when any of this changes.

    Usage:
        env, params = jaxtrade.make("Trading-v0", market=market, window=32)
        obs, state = env.reset(key, params)
        obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
    """

    features: FeatureSpec = DEFAULT_FEATURES
    levels: tuple[float, ...] = (-1.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        levels = tuple(map(float, self.levels))
        object.__setattr__(self, "levels", levels)  # equal and hashable, however they were given
        if len(levels) < 2 or len(set(levels)) < len(levels) or not np.isfinite(levels).all():
            raise JaxtradeError(
                f"levels are {levels}: give at least two different target exposures, as (-1, 0, 1)"
            )

    def reset_state(self, key: jax.Array, params: EnvParams) -> State:
        """A flat account at a drawn row."""
        return self._begin(jax.random.bits(key, dtype=jnp.uint32), params)

    def restart(self, state: State, params: EnvParams) -> State:
        """A flat account at the next drawn row."""
        return self._begin(state.seed + jnp.uint32(0x9E3779B9), params)

    def _begin(self, seed: jax.Array, params: EnvParams) -> State:
        starts = params.last - params.first - params.max_steps_in_episode + 1
        starts = jnp.maximum(starts, 1)  # longer than the data: one episode over all of it
        return State(
            index=params.first + scale(mix(seed), starts),
            time=jnp.int32(0),
            seed=seed,
            account=ledger.open_account(params.bars.shape[1]),
        )

    def advance(
        self, state: State, action: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array, Info]:
        """One step from an action; see the class."""
        levels = jnp.asarray(self.levels, jnp.float32)
        level = levels.at[action].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        return self.advance_to(state, level[None], params)

    def advance_to(
        self, state: State, requested: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array, Info]:
        """One step from a requested exposure f32[A], which need not be one of the levels."""
        account = state.account
        mask = jnp.ones_like(requested)
        loss = (ledger.drawdown(account), ledger.day_return(account))
        target, binding = risk.review(requested, account.weights, mask, loss, params.limits)
        order = delta_order(target, account.weights, params.no_trade_band, xp=jnp)

        index = state.index + 1
        years, is_new_day = params.calendar[index]
        years = jnp.where(index > params.last, jnp.nan, years)  # past the data: ruin, no bar again
        account = ledger.start_day(account, is_new_day > 0)
        account, move = ledger.next_open(account, order, params.bars[index], years, params.costs)
        state = state.replace(  # type: ignore[attr-defined]
            index=index, time=state.time + 1, account=account
        )
        info = {"target": target, "binding": binding, "move": move}
        return state, jnp.log1p(account.last_return), account.is_ruined, info

    def observation(self, state: State, params: EnvParams) -> Observation:
        """The window up to the newest bar seen, and the account."""
        rows, width = self.features.window, params.table.shape[1]
        start = (state.index - (rows - 1), jnp.int32(0))
        window = jax.lax.dynamic_slice(params.table, start, (rows, width))
        return observe(window, ledger.account_vector(state.account))

    def is_truncated(self, state: State, params: EnvParams) -> jax.Array:
        """The clock has run out, or the data has."""
        return (state.time >= params.max_steps_in_episode) | (state.index >= params.last)

    def is_terminated(self, state: State, params: EnvParams) -> jax.Array:
        """Ruin."""
        return state.account.is_ruined

    def params(
        self,
        market: Market,
        *,
        first: int | None = None,
        last: int | None = None,
        episode_steps: int | None = 256,
        normaliser: Normaliser | None = None,
        costs: Costs | None = None,
        limits: RiskLimits | None = None,
        no_trade_band: float = 0.05,
    ) -> EnvParams:
        """The parameters for the rows first .. last of a market.

        `first` is by default the first row with a full lookback, `last` the market's last,
        `episode_steps` None one episode over all of them, `normaliser` fitted on just these rows.

        Raises:
            JaxtradeError: not one asset, too few rows, or a number out of range.
        """
        first = lookback(self.features) if first is None else first
        last = market.num_bars - 1 if last is None else last
        steps = last - first if episode_steps is None else episode_steps
        _check_episodes(market, self.features.window, first, last, steps)
        if not 0 <= no_trade_band < 1:
            raise JaxtradeError(f"no_trade_band is {no_trade_band}: give 0 to below 1")
        raw = raw_table(self.features, market)
        fitted = fit(raw, first, last) if normaliser is None else normaliser
        if fitted.mean.shape != raw.shape[2:]:
            raise JaxtradeError(
                f"the normaliser has {fitted.mean.size} columns, the features have {raw.shape[2]}"
            )
        table = normalise(fitted, raw, self.features.clip)
        return EnvParams(
            max_steps_in_episode=jnp.int32(steps),
            table=table.reshape(market.num_bars, -1),
            normaliser=fitted,
            bars=jnp.asarray(market.bars),
            calendar=jnp.asarray(calendar_rows(market)),
            first=jnp.int32(first),
            last=jnp.int32(last),
            costs=make_costs() if costs is None else costs,
            limits=jnp.asarray((limits or RiskLimits()).vector(), jnp.float32),
            no_trade_band=jnp.float32(no_trade_band),
        )

    @property
    def default_params(self) -> EnvParams:
        """The parameters on a small synthetic market."""
        return _default_params(self)

    @property
    def name(self) -> str:
        """The registered name."""
        return "Trading-v0"

    @property
    def num_actions(self) -> int:
        """Number of levels."""
        return len(self.levels)

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """An index into the levels."""
        return spaces.Discrete(len(self.levels))

    def observation_space(self, params: EnvParams | None = None) -> spaces.Dict:
        """Bounds of the two leaves."""
        shape = (self.features.window, len(columns(self.features)))
        low, high = account_bounds(1)
        return spaces.Dict(
            {
                "market": spaces.Box(-self.features.clip, self.features.clip, shape, jnp.float32),
                "account": spaces.Box(jnp.asarray(low), jnp.asarray(high), low.shape, jnp.float32),
            }
        )


@functools.lru_cache(maxsize=8)
def _default_params(env: Trading) -> EnvParams:
    with jax.ensure_compile_time_eval():
        return env.params(make_market(num_bars=5_000))


def make_trading(
    market: Market,
    *,
    window: int = 32,
    levels: tuple[float, ...] = (-1.0, 0.0, 1.0),
    features: Mapping[str, bool] | FeatureSpec | None = None,
    clip: float = 5.0,
    **options: Any,
) -> tuple[Trading, EnvParams]:
    """Trading-v0 on a market: the environment and its parameters.

    `features` switches features on and off by name over the default, or is a whole specification,
    which then says window and clip; `options` go to `Trading.params`.
    """
    if not isinstance(features, FeatureSpec):
        switches = {**dict.fromkeys(DEFAULT_FEATURES.names, True), **(features or {})}
        features = resolve(switches, market.spec, window=window, clip=clip)
    env = Trading(features=features, levels=levels)
    return env, env.params(market, **options)


def _check_episodes(market: Market, window: int, first: int, last: int, steps: int) -> None:
    """Raise JaxtradeError unless episodes of `steps` fit into the rows first .. last."""
    if market.num_assets != 1:
        raise JaxtradeError(f"Trading-v0 trades one asset, the market has {market.num_assets}")
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


def calendar_rows(market: Market) -> np.ndarray:
    """f32[T, 2]: years since the bar before, and 1 on the first bar of each UTC day."""
    is_new_day = np.diff(market.day, prepend=market.day[:1] - 1) != 0
    return np.stack([market.clock[:, 2], is_new_day.astype(np.float32)], axis=-1)


def mix(seed: jax.Array) -> jax.Array:
    """A u32 from a u32: the finaliser of MurmurHash3. Over a Weyl sequence it draws like random."""
    h = (seed ^ (seed >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def scale(draw: jax.Array, count: jax.Array) -> jax.Array:
    """floor(draw * count / 2**32), i32[] in 0 .. count - 1, from a u32 draw without 64 bits."""
    half, low = jnp.uint32(16), jnp.uint32(0xFFFF)
    size = count.astype(jnp.uint32)
    upper, lower = (draw >> half) * (size & low), (draw & low) * (size >> half)
    carry = (((draw & low) * (size & low)) >> half) + (upper & low) + (lower & low)
    high = (draw >> half) * (size >> half) + (upper >> half) + (lower >> half)
    return (high + (carry >> half)).astype(jnp.int32)
