"""GymTrading-v0: what gym-trading-env 0.3.5 computes, for those who come from there."""

import dataclasses
import functools
import numbers
from collections.abc import Sequence
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces

from jaxtrade.decision import Observation
from jaxtrade.envs import gym_account
from jaxtrade.envs.base import Environment, Info
from jaxtrade.envs.episodes import scale
from jaxtrade.market import Market
from jaxtrade.mixing import WEYL, mix
from jaxtrade.spans import require_rows
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic import make_market

NAME = "GymTrading-v0"
DEFAULT_FEATURES = ("feature_open", "feature_high", "feature_low", "feature_close")
MAX_POSITION = 1e6


@flax.struct.dataclass(kw_only=True)
class EnvParams(environment.EnvParams):
    """What an experiment varies; the market is un-batched (`in_axes=None`), one copy for all.

    features: f32[T, F], the static features as they are; returns: f32[T], of the close over the
    close before; trading_fees: f32[], part of the value traded; borrow_interest_rate: f32[], per
    step; portfolio_initial_value: f32[], quote currency; first, num_starts: i32[], episodes start
    at rows first .. first + num_starts - 1; max_steps_in_episode: i32[].
    """

    features: jax.Array
    returns: jax.Array
    trading_fees: jax.Array
    borrow_interest_rate: jax.Array
    portfolio_initial_value: jax.Array
    first: jax.Array
    num_starts: jax.Array


@flax.struct.dataclass(kw_only=True)
class State:
    """index: i32[], the newest bar seen; time: i32[], steps since the episode's start; seed: u32[],
    from which that start was drawn; target: i32[], index of the last target taken; history:
    f32[W, 2], target and real position at the last W bars, the newest last, 0 before the start.
    """

    index: jax.Array
    time: jax.Array
    seed: jax.Array
    target: jax.Array
    history: jax.Array
    account: gym_account.Account


@dataclasses.dataclass(frozen=True, kw_only=True)
class GymTrading(Environment[State, EnvParams]):
    """GymTrading-v0: gym-trading-env 0.3.5 to within float32, quirks included.

    Observation: `market` f32[W, F], the static features of rows t - W + 1 .. t (`windows` None: one
        row); `account` f32[2 W], target and real position at each of them, the newest last.
        `gym_observation` puts both into that package's one array.
    Action: i32[], index into `positions`, targets for asset value over portfolio value; no such
        index means hold (there: None). A target other than the last is traded to at the close just
        observed, the fee withheld from what is bought; the same target is not traded to again.
    Reward: f32[], the log return of the portfolio value; 0 at ruin.
    Termination: ruin, a value of 0 or less.
    Truncation: `max_episode_duration` of M makes M - 1 steps; "max" ends at the last row.
    Start: "max" at the first row with a full window; M at a row drawn from where an episode fits.
        The first position is `initial_position` or drawn; it costs no fee.
    Info: `portfolio_valuation` f32[], quote currency (at ruin what is left, 0 or less);
        `real_position`, `position` f32[]; `position_index` i32[], of the target held;
        `trading_cost` f32[], fee over the value before the trade; what `Environment.step` adds.
    Version: 0; rises when any of this changes.

    Kept, since results would differ otherwise (Trading-v0 has money that is accounted for):
        interest is written anew at each step and never adds up, most trades wipe it out unpaid;
        ruin is not punished; there is no margin call; trades fill at a price already seen.

    Different, and why:
        - never terminated and truncated at once: learners need to know which.
        - starts and first positions come from the key, there from NumPy's global generator.
        - in a window, positions before the episode are 0, there what earlier episodes left.
        - `position_index` is the target held, there the action; `info` has no date, no columns of
          the market and no distribution: an array per step and environment for nothing.
        - names of columns are matched in lower case, as `Market` keeps them.
        - any integer is a `max_episode_duration`, there NumPy's never truncate.
        - refused: no feature, equal positions, positions beyond 1 - 1 / fee or 1 / fee (they would
          earn the fee), rates out of range.
        - left out: limit orders, own rewards and dynamic features, several datasets, rendering.

    Usage:
        env, params = jaxtrade.make("GymTrading-v0", market=market, positions=[-1, 0, 1])
        obs, state = env.reset(key, params)
        obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
    """

    features: tuple[str, ...] = DEFAULT_FEATURES
    positions: tuple[float, ...] = (0.0, 1.0)
    initial_position: float | Literal["random"] = "random"
    windows: int | None = None

    def __post_init__(self) -> None:
        positions = tuple(map(float, self.positions))
        object.__setattr__(self, "positions", positions)  # equal and hashable, however given
        is_valid = 0 < len(positions) == len(set(positions))
        if not is_valid or not all(abs(position) <= MAX_POSITION for position in positions):
            raise JaxtradeError(
                f"positions are {positions}: give different numbers within +-{MAX_POSITION:g}, "
                "as (-1, 0, 1)"
            )
        if self.initial_position != "random":
            if self.initial_position not in positions:
                given, known = repr(self.initial_position), (*positions, "random")
                raise JaxtradeError(f"initial_position is {given}: give one of {known}")
            object.__setattr__(self, "initial_position", float(self.initial_position))
        if self.windows is not None:
            object.__setattr__(self, "windows", _integer("windows", self.windows, 1, "or None"))

    def reset_state(self, key: jax.Array, params: EnvParams) -> State:
        """A portfolio at its first position, at a drawn row."""
        return self._begin(jax.random.bits(key, dtype=jnp.uint32), params)

    def restart(self, state: State, params: EnvParams) -> State:
        """A portfolio at its first position, at the next drawn row."""
        return self._begin(state.seed + jnp.uint32(WEYL), params)

    def _begin(self, seed: jax.Array, params: EnvParams) -> State:
        draw = mix(seed)
        if self.initial_position == "random":
            another = mix(draw ^ jnp.uint32(0xB5297A4D))
            target = scale(another, jnp.int32(len(self.positions)))
        else:
            target = jnp.int32(self.positions.index(self.initial_position))
        position = self._levels[target]
        return State(
            index=params.first + scale(draw, params.num_starts),
            time=jnp.int32(0),
            seed=seed,
            target=target,
            history=jnp.zeros((self._num_rows, 2), jnp.float32).at[-1].set(position),
            account=gym_account.open_account(position),
        )

    def advance(
        self, state: State, action: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array, Info]:
        """One step from an action; see the class."""
        is_target = (action >= 0) & (action < len(self.positions))
        target = jnp.where(is_target, action, state.target).astype(jnp.int32)
        position = self._levels[target]
        index = state.index + 1
        is_past = index >= params.returns.shape[0]  # past the data: ruin, no bar again
        account, cost = gym_account.step(
            state.account.replace(  # type: ignore[attr-defined]
                is_ruined=state.account.is_ruined | is_past
            ),
            position,
            target != state.target,
            params.returns[index],
            params.trading_fees,
            params.borrow_interest_rate,
        )
        newest = jnp.stack([position, account.real_position])
        state = State(
            index=index,
            time=state.time + 1,
            seed=state.seed,
            target=target,
            history=jnp.concatenate([state.history[1:], newest[None]]),
            account=account,
        )
        growth = jnp.where(account.is_ruined, 0.0, account.last_return)
        info = {
            "portfolio_valuation": params.portfolio_initial_value * gym_account.value(account),
            "real_position": account.real_position,
            "position": position,
            "position_index": target,
            "trading_cost": cost,
        }
        return state, jnp.log1p(growth), account.is_ruined, info

    def observation(self, state: State, params: EnvParams) -> Observation:
        """The static features up to the newest bar seen, and the positions at those bars."""
        start = (state.index - (self._num_rows - 1), jnp.int32(0))
        shape = (self._num_rows, params.features.shape[1])
        window = jax.lax.dynamic_slice(params.features, start, shape)
        return Observation(market=window, account=state.history.reshape(-1))

    def gym_observation(self, observation: Observation) -> jax.Array:
        """An observation as gym-trading-env lays it out: f32[..., W, F + 2], static features, then
        target and real position; f32[..., F + 2] where `windows` is None.
        """
        market = observation.market
        account = observation.account.reshape(*market.shape[:-1], 2)
        rows = jnp.concatenate([market, account], axis=-1)
        return rows[..., 0, :] if self.windows is None else rows

    def is_truncated(self, state: State, params: EnvParams) -> jax.Array:
        """The clock has run out, or the data has."""
        last = params.returns.shape[0] - 1
        return (state.time >= params.max_steps_in_episode) | (state.index >= last)

    def is_terminated(self, state: State, params: EnvParams) -> jax.Array:
        """Ruin."""
        return state.account.is_ruined

    def params(
        self,
        market: Market,
        *,
        trading_fees: float = 0.0,
        borrow_interest_rate: float = 0.0,
        portfolio_initial_value: float = 1000.0,
        max_episode_duration: int | Literal["max"] = "max",
    ) -> EnvParams:
        """The parameters on a market with the columns `features`.

        Raises:
            JaxtradeError: not one asset, a column missing, too few rows, or a number out of range.
        """
        self._check_money(trading_fees, borrow_interest_rate, portfolio_initial_value)
        if market.num_assets != 1:
            raise JaxtradeError(f"{NAME} trades one asset, the market has {market.num_assets}")
        first = self._num_rows - 1
        if max_episode_duration == "max":
            require_rows(market, first + 2, f"a window of {self._num_rows} and a step")
            steps, num_starts = market.num_bars - 1 - first, 1
        else:
            duration = _integer("max_episode_duration", max_episode_duration, 2, "or 'max'")
            why = f"max_episode_duration {duration} with a window of {self._num_rows}"
            require_rows(market, duration + 2 * first + 1, why)
            steps, num_starts = duration - 1, market.num_bars - duration - 2 * first
        return EnvParams(
            max_steps_in_episode=jnp.int32(steps),
            features=jnp.asarray(market.context[:, self._columns(market)]),
            returns=jnp.asarray(market.bars[:, 0, 3]),
            trading_fees=jnp.float32(trading_fees),
            borrow_interest_rate=jnp.float32(borrow_interest_rate),
            portfolio_initial_value=jnp.float32(portfolio_initial_value),
            first=jnp.int32(first),
            num_starts=jnp.int32(num_starts),
        )

    def _columns(self, market: Market) -> list[int]:
        missing = [name for name in self.features if name not in market.spec.context]
        if missing or not self.features:
            found = ", ".join(market.spec.context) or "none"
            wanted = repr(missing[0]) if missing else "with 'feature' in its name"
            raise JaxtradeError(f"{market.name()}: no column {wanted}; the extra ones are: {found}")
        return [market.spec.context.index(name) for name in self.features]

    def _check_money(self, fee: float, rate: float, initial_value: float) -> None:
        if not 0 <= fee < 1:
            raise JaxtradeError(f"trading_fees is {fee}: give 0 to below 1")
        if not 0 <= rate < 1:
            raise JaxtradeError(f"borrow_interest_rate is {rate}: give 0 to below 1, per step")
        if not 0 < initial_value < 1e30:
            raise JaxtradeError(f"portfolio_initial_value is {initial_value}: give more than 0")
        bad = [p for p in self.positions if fee * max(p, 1 - p) > 1 - 1e-6]
        if bad:
            right = f"give positions between {1 - 1 / fee:g} and {1 / fee:g}"
            raise JaxtradeError(f"position {bad[0]} cannot be paid for at a fee of {fee}: {right}")

    @property
    def default_params(self) -> EnvParams:
        """The parameters on a small synthetic market."""
        return _default_params(self)

    @property
    def name(self) -> str:
        """The registered name."""
        return NAME

    @property
    def num_actions(self) -> int:
        """Number of positions."""
        return len(self.positions)

    @property
    def _levels(self) -> jax.Array:
        return jnp.asarray(self.positions, jnp.float32)

    @property
    def _num_rows(self) -> int:
        return 1 if self.windows is None else self.windows

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """An index into the positions."""
        return spaces.Discrete(len(self.positions))

    def observation_space(self, params: EnvParams | None = None) -> spaces.Dict:
        """The two leaves, unbounded."""
        shapes = {"market": (self._num_rows, len(self.features)), "account": (2 * self._num_rows,)}
        return spaces.Dict(
            {name: spaces.Box(-jnp.inf, jnp.inf, shape) for name, shape in shapes.items()}
        )


@functools.lru_cache(maxsize=8)
def _default_params(env: GymTrading) -> EnvParams:
    market = make_market(num_bars=5_000)
    spec = dataclasses.replace(market.spec, context=DEFAULT_FEATURES)
    market = market.replace(context=market.bars[:, 0], spec=spec)  # type: ignore[attr-defined]
    with jax.ensure_compile_time_eval():
        return env.params(market)


def make_gym_trading(
    market: Market,
    *,
    positions: Sequence[float] = (0, 1),
    trading_fees: float = 0.0,
    borrow_interest_rate: float = 0.0,
    portfolio_initial_value: float = 1000.0,
    initial_position: float | Literal["random"] = "random",
    windows: int | None = None,
    max_episode_duration: int | Literal["max"] = "max",
) -> tuple[GymTrading, EnvParams]:
    """GymTrading-v0 on a market, with gym-trading-env's names: the environment and its parameters.

    The static features are the market's extra columns with `feature` in their name, in order.
    """
    env = GymTrading(
        features=tuple(name for name in market.spec.context if "feature" in name),
        positions=tuple(positions),
        initial_position=initial_position,
        windows=windows,
    )
    return env, env.params(
        market,
        trading_fees=trading_fees,
        borrow_interest_rate=borrow_interest_rate,
        portfolio_initial_value=portfolio_initial_value,
        max_episode_duration=max_episode_duration,
    )


def _integer(name: str, value: Any, least: int, other: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise JaxtradeError(f"{name} is {value!r}: give an integer of {least} or more, {other}")
    return int(value)
