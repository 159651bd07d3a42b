"""The market environment: one engine of money, any number of assets, actions and rewards by choice.

`Trading-v0` is this class as it is; `presets.py` has the others of its family, `params.py` what
their markets become.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jax.experimental import checkify

from jaxtrade import ledger, risk
from jaxtrade import rewards as reward_terms
from jaxtrade.assemble import combine
from jaxtrade.brackets import STOP
from jaxtrade.decision import Observation, observe
from jaxtrade.envs.actions import Actions, Exposure, Levels, PricedOrders, Request, Weights
from jaxtrade.envs.base import Environment, Info
from jaxtrade.envs.episodes import scale
from jaxtrade.envs.params import EnvParams, make_params
from jaxtrade.envs.steps import (
    EXTRA_BOUND,
    Recent,
    committed,
    extra_features,
    facts_of,
    order_for,
    stop_distance,
    unless_forced,
)
from jaxtrade.features import DEFAULT_FEATURES, account_bounds, columns
from jaxtrade.market import Market
from jaxtrade.mixing import WEYL, mix
from jaxtrade.specs import HARD_LIMITS, FeatureSpec, JaxtradeError
from jaxtrade.synthetic import make_market
from jaxtrade.tape import Bar

SHORT_FLAT_LONG = Levels((-1.0, 0.0, 1.0))


@flax.struct.dataclass(kw_only=True)
class State:
    """index: i32[], the newest bar seen; time: i32[], steps since the episode's start; seed: u32[],
    from which that start was drawn; account; end: i32[], the last row of the episode's market, or
    None where there is one market; terms: memories of the reward's terms; recent: of each of the
    last H steps, the newest last, the target f32[A] and the return f32[].
    """

    index: jax.Array
    time: jax.Array
    seed: jax.Array
    account: ledger.Account
    end: jax.Array | None = None
    terms: reward_terms.Memory
    recent: Recent = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trading(Environment[State, EnvParams]):
    """Trading-v0: choose exposures at each bar's close; by default they fill at the next open.

    Observation: `market` f32[W, F] (for A > 1 assets f32[W, A, F]), rows t - W + 1 .. t of the
        feature table; `account` f32[k]: for each asset exposure, open return, bars held; drawdown,
        day's return, last return; where there are such, exposures under way f32[A], assets in
        cooldown f32[A] and whether the breaker is out f32[1], the last `history` actions and
        returns; all scaled and clipped.
    Action: what `actions` says, by default i32[], index into levels (-1, 0, 1): target exposures as
        fractions of equity, signed. What is none (NaN, no such index) means hold. The risk review
        sizes and bounds the target; the difference to what is held is traded if above the band.
    Reward: f32[], the weighted sum of the terms `terms` (see `jaxtrade.rewards`), by default the
        log return of equity after all costs.
    Termination: ruin, less than 0.1 % of equity left after a step; the log return is log(0.001).
    Truncation: after `max_steps_in_episode` steps, or at the last row.
    Start: a row drawn uniformly such that the episode fits (the first if none does), or one of
        `params.starts`; flat, with equity 1.
    Info: `target` f32[A] and `binding` i32[] of the review, `move` (`ledger.Move`), `terms` (value
        of each reward term), `invalid_actions` and `clipped_actions` i32[] (how many numbers of
        this action), `regime` i32[] where the data are tagged, and what `Environment.step` adds.
    Version: 0; rises when any of this changes.

    `debug` (static) makes an invalid action an error under `jax.experimental.checkify`.

    Usage:
        env, params = jaxtrade.make("Trading-v0", market=market, window=32)
        obs, state = env.reset(key, params)
        obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
    """

    features: FeatureSpec = DEFAULT_FEATURES
    actions: Actions = SHORT_FLAT_LONG
    terms: tuple[str, ...] = ("log_return",)
    history: int = 0
    num_assets: int = 1
    debug: bool = False
    transition_gradients: bool = False

    def __post_init__(self) -> None:
        if self.history < 0:
            raise JaxtradeError(f"history is {self.history}: give 0 or more steps")

    @property
    def levels(self) -> tuple[float, ...]:
        """The exposures that discrete actions stand for.

        Raises:
            JaxtradeError: the actions are not levels.
        """
        if not isinstance(self.actions, Levels):
            raise JaxtradeError(f"{self.name} with actions {self.actions} has no levels")
        return self.actions.levels

    def reset_state(self, key: jax.Array, params: EnvParams) -> State:
        """A flat account at a drawn row."""
        return self._begin(jax.random.bits(key, dtype=jnp.uint32), params)

    def restart(self, state: State, params: EnvParams) -> State:
        """A flat account at the next drawn row."""
        return self._begin(state.seed + jnp.uint32(WEYL), params)

    def _begin(self, seed: jax.Array, params: EnvParams) -> State:
        if params.starts is None:
            starts = params.last - params.first - params.max_steps_in_episode + 1
            starts = jnp.maximum(starts, 1)  # longer than the data: one episode over all of it
            index, end = params.first + scale(mix(seed), starts), None
        else:
            drawn = scale(mix(seed), jnp.int32(params.starts.shape[0]))
            index, end = params.starts[drawn], params.ends[drawn]  # type: ignore[index]
        account = ledger.open_account(self.num_assets, params.rules)
        if _is_full(params.limits):
            account = dataclasses.replace(account, memory=risk.init_memory(self.num_assets))
        nothing = (jnp.zeros(self.num_assets, jnp.float32), jnp.float32(0.0))
        return State(
            index=index,
            time=jnp.int32(0),
            seed=seed,
            account=account,
            end=end,
            terms=reward_terms.init(self.terms),
            recent=(nothing,) * self.history,
        )

    def advance(
        self, state: State, action: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array, Info]:
        """One step from an action; see the class."""
        return self.fulfil(state, self.actions.read(action, committed(state.account)), params)

    def advance_to(
        self, state: State, requested: jax.Array, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array, Info]:
        """One step from a requested exposure f32[A], which need not be one of the levels."""
        none = jnp.int32(0)
        return self.fulfil(state, Request(exposure=requested, invalid=none, clipped=none), params)

    def fulfil(
        self, state: State, request: Request, params: EnvParams
    ) -> tuple[State, jax.Array, jax.Array, Info]:
        """One step from what an action asks for."""
        if self.debug:
            checkify.check(request.invalid == 0, "an action is not a number, or not an index")
        index = state.index + 1
        bar = params.tape.bar(index)
        is_past = index > self._end(state, params)  # past the data: ruin, no bar again
        bar = dataclasses.replace(bar, years=jnp.where(is_past, jnp.nan, bar.years))

        target, binding = self.review(state, request.exposure, bar, params)
        request = unless_forced(request, target, committed(state.account), bar)
        order = order_for(state.account, target, request, bar, params)
        account, move = ledger.step(state.account, order, bar, params.rules)
        if account.memory is not None:
            stopped = move.exit_code == STOP
            memory = risk.remember(account.memory, ledger.drawdown(account), stopped, params.limits)
            account = dataclasses.replace(account, memory=memory)
        after = dataclasses.replace(state, index=index, time=state.time + 1, account=account)
        if state.recent:
            recent = (*state.recent[1:], (target, account.last_return))
            after = dataclasses.replace(after, recent=recent)
        is_last = self.is_truncated(after, params)
        facts = facts_of(state.account, account, move, is_last)
        kept, reward, terms = reward_terms.update(self.terms, params.rewards, state.terms, facts)
        info = {
            "target": target,
            "binding": binding,
            "move": move,
            "terms": terms,
            "invalid_actions": request.invalid,
            "clipped_actions": request.clipped,
        }
        if params.tags is not None:
            info["regime"] = params.tags[state.index]
        return dataclasses.replace(after, terms=kept), reward, account.is_ruined, info

    def review(
        self, state: State, requested: jax.Array, bar: Bar, params: EnvParams
    ) -> tuple[jax.Array, jax.Array]:
        """What the risk review makes of requested exposures f32[A]: target f32[A], binding i32[].

        bar: the next one, of which only what is known before it is looked at.
        """
        account = state.account
        if bar.session_end is not None:
            requested = jnp.where(bar.session_end > 0, 0.0, requested)
        sized = None
        if _is_full(params.limits):
            sized = risk.size(
                requested,
                bar.volatility,
                stop_distance(bar, params.rules),
                params.limits,
                bars_per_year=params.bars_per_year,
            )
        return risk.review(
            requested,
            committed(account),
            jnp.ones_like(requested),
            (ledger.drawdown(account), ledger.day_return(account)),
            params.limits,
            memory=account.memory,
            caps=params.caps,
            sized=sized,
        )

    def action_mask(self, state: State, params: EnvParams) -> jax.Array:
        """Which levels do what they say, bool[n]: the review leaves them as they are.

        Raises:
            JaxtradeError: the actions are not levels of one asset.
        """
        levels = jnp.asarray(self.levels, jnp.float32)
        if self.num_assets != 1:
            raise JaxtradeError("an action mask is for one asset")
        bar = params.tape.bar(state.index + 1)
        review = functools.partial(self.review, state, bar=bar, params=params)
        targets, _ = jax.vmap(review)(levels[:, None])
        return targets[:, 0] == levels

    def observation(self, state: State, params: EnvParams) -> Observation:
        """The window up to the newest bar seen, and the account."""
        rows, width = self.features.window, params.table.shape[1]
        start = (state.index - (rows - 1), jnp.int32(0))
        window = jax.lax.dynamic_slice(params.table, start, (rows, width))
        if self.num_assets > 1:
            window = window.reshape(rows, self.num_assets, -1)
        seen = observe(window, ledger.account_vector(state.account))
        extra = extra_features(state.account, state.recent)
        if not extra:
            return seen
        return dataclasses.replace(seen, account=jnp.concatenate([seen.account, *extra]))

    def is_truncated(self, state: State, params: EnvParams) -> jax.Array:
        """The clock has run out, or the data has."""
        is_over = state.index >= self._end(state, params)
        return (state.time >= params.max_steps_in_episode) | is_over

    def is_terminated(self, state: State, params: EnvParams) -> jax.Array:
        """Ruin."""
        return state.account.is_ruined

    def _end(self, state: State, params: EnvParams) -> jax.Array:
        return params.last if state.end is None else state.end

    def params(self, market: Market | Sequence[Market], **options: Any) -> EnvParams:
        """The parameters on one market or several; `options` are those of `params.make_params`.

        Raises:
            JaxtradeError: see there; or rules under which orders cannot wait for their price.
        """
        params = make_params(self, market, **options)
        fill, latency = params.rules.fill, params.rules.latency
        if isinstance(self.actions, PricedOrders) and (fill != "next_open" or latency):
            raise JaxtradeError(
                "priced orders wait inside the next bar: give fill='next_open' and latency=0 "
                f"(they are {fill!r} and {latency})"
            )
        return params

    @property
    def supports_transition_gradients(self) -> bool:
        """Whether the step can be differentiated: exposures are numbers, not indices."""
        return isinstance(self.actions, Exposure | Weights)

    @property
    def transition_gradients_enabled(self) -> bool:
        """Whether observations and states keep their gradients."""
        return self.transition_gradients

    def with_transition_gradients(self) -> Self:
        """The same environment, whose observations and states keep their gradients."""
        if not self.supports_transition_gradients:
            raise ValueError(f"{self.name} with {self.actions} does not support gradients")
        return dataclasses.replace(self, transition_gradients=True)

    @property
    def default_params(self) -> EnvParams:
        """The parameters on a small synthetic market."""
        return _default_params(self)

    @property
    def name(self) -> str:
        """The registered name."""
        return f"{type(self).__name__}-v0"

    @property
    def num_actions(self) -> int:
        """Number of levels, or of numbers in an action."""
        space = self.actions.space(self.num_assets)
        return space.n if isinstance(space, spaces.Discrete) else space.shape[0]

    def action_space(self, params: EnvParams | None = None) -> Any:
        """What `actions` says."""
        return self.actions.space(self.num_assets)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Dict:
        """Bounds of the two leaves."""
        params = self.default_params if params is None else params
        assets = (self.num_assets,) if self.num_assets > 1 else ()
        shape = (self.features.window, *assets, len(columns(self.features)))
        low, high = account_bounds(self.num_assets)
        state = jax.eval_shape(self.reset_state, jax.random.key(0), params)
        count = sum(
            leaf.shape[0] for leaf in jax.eval_shape(extra_features, state.account, state.recent)
        )
        low = np.concatenate([low, np.full(count, -EXTRA_BOUND, np.float32)])
        high = np.concatenate([high, np.full(count, EXTRA_BOUND, np.float32)])
        return spaces.Dict(
            {
                "market": spaces.Box(-self.features.clip, self.features.clip, shape, jnp.float32),
                "account": spaces.Box(jnp.asarray(low), jnp.asarray(high), low.shape, jnp.float32),
            }
        )


def _is_full(limits: jax.Array) -> bool:
    """Whether limits are set that size positions or need a memory."""
    return limits.shape[-1] > len(HARD_LIMITS)


@functools.lru_cache(maxsize=8)
def _default_params(env: Trading) -> EnvParams:
    with jax.ensure_compile_time_eval():
        markets = [make_market(num_bars=5_000, seed=seed) for seed in range(env.num_assets)]
        return env.params(markets[0] if env.num_assets == 1 else _side_by_side(markets))


def _side_by_side(markets: Sequence[Market]) -> Market:
    """Synthetic markets of one asset each as one market."""
    named = [
        dataclasses.replace(
            market, spec=dataclasses.replace(market.spec, symbols=(f"SYNTH{number}",))
        )
        for number, market in enumerate(markets)
    ]
    return combine(named)
