"""What tests of parity share: the environment's own walk, and a bundle walked beside it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade import ledger
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.market import Market
from jaxtrade.orders import Order
from jaxtrade.sizing import delta_order
from jaxtrade.specs import HARD_LIMITS, BundleMetadata
from tests.bundles import metadata_of

TIE = 1e-4
"""Two outputs no further apart may be ordered either way."""


def describe(policy, market: Market, agent: str = "ppo") -> BundleMetadata:
    return metadata_of(
        policy,
        agent=agent,
        symbols=market.spec.symbols,
        bar_seconds=market.spec.bar_seconds,
        fingerprint=market.fingerprint(),
    )


@functools.partial(jax.jit, static_argnames=("env", "num_steps"))
def walked(agent, actor, env, params, num_steps):
    """An episode by the environment's own reading of actions, a row for each decision: account
    vectors before it, outputs, memories after it, targets, log equities after it.
    """

    def step(carry, _):
        state, hidden = carry
        one = jax.tree.map(lambda leaf: leaf[None], env.observation(state, params))
        outputs, _, hidden = agent.assess(actor, one, hidden)
        vector = ledger.account_vector(state.account)
        state, _, _, info = env.advance(state, actor.head.mode(outputs)[0], params)
        row = (vector, outputs[0], hidden[0], info["target"], state.account.log_equity)
        return (state, hidden), row

    start = env.reset_state(jax.random.key(0), params), jnp.zeros((1, agent.hidden_size))
    return jax.lax.scan(step, start, None, length=num_steps)[1]


def lead(outputs: np.ndarray, num_levels: int) -> np.ndarray:
    """By how much the best output of an asset leads, at least: outputs [T, A * n] to [T]."""
    ordered = np.sort(outputs.reshape(len(outputs), -1, num_levels), axis=2)
    return (ordered[..., -1] - ordered[..., -2]).min(axis=1)


class Walk:
    """A bundle told of every bar up to `last`; its episode begins at `first`."""

    def __init__(self, bundle, market: Market, params) -> None:
        self.policy = OnnxPolicy(bundle)
        self.first, self.last = int(params.first), int(params.last)
        self._bars = np.concatenate([market.bars, market.volume[..., None]], axis=-1)
        self._clock = market.clock
        self._limits = np.asarray(params.limits)[: len(HARD_LIMITS)]
        self._mask = np.ones(market.num_assets, np.float32)
        self.table = np.asarray(params.table)
        self.row_gap = 0.0

    def decide(self, t: int, account):
        if t == self.first:
            self.policy.forget()
        told = (self._bars[t], np.zeros(0, np.float32), self._clock[t])
        decision = self.policy.decide(*told, self._mask, account, self._limits)
        gap = np.abs(self.policy.carry().window[-1] - self.table[t]).max()
        self.row_gap = max(self.row_gap, float(gap))
        return decision

    def warm_up(self, num_assets: int) -> None:
        for t in range(self.first):
            self.decide(t, np.zeros(3 * num_assets + 3, np.float32))


def closed_loop(walk: Walk, params, num_assets: int) -> list:
    """Decisions and log equities of a bundle that trades an account of its own."""

    @jax.jit
    def trade(account, order, params, index):
        bar = params.tape.bar(index)
        account, _ = ledger.step(account, Order(quantity=order), bar, params.rules)
        return account, ledger.account_vector(account)

    account = ledger.open_account(num_assets, params.rules)
    vector = np.asarray(ledger.account_vector(account))
    band, rows = np.float32(params.no_trade_band), []
    walk.warm_up(num_assets)
    for t in range(walk.first, walk.last):
        decision = walk.decide(t, vector)
        order = delta_order(decision.target, vector[:num_assets], band, xp=np)
        account, vector = trade(account, order, params, jnp.int32(t + 1))
        vector = np.asarray(vector)
        rows.append((decision, float(account.log_equity)))
    return rows
