"""An exported policy replayed bar by bar, as live trading runs it, beside the ledger."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade import features, ledger
from jaxtrade.envs import EnvParams
from jaxtrade.envs.actions import Request
from jaxtrade.envs.steps import order_for
from jaxtrade.experiments.backtest import record
from jaxtrade.experiments.results import Backtest
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.market import Market
from jaxtrade.specs import HARD_LIMITS

TOLERANCE = 1e-5
"""Exposures this near are the same action."""


def replay(path: str | Path, market: Market, env_params: EnvParams, *, span: str) -> Backtest:
    """Run a bundle over a market: it sees every bar from the first, and trades first .. last.

    Raises:
        JaxtradeError: not a bundle, or the market lacks a column it needs.
    """
    policy = OnnxPolicy(path)
    spec = policy.metadata.features
    first, last = int(env_params.first), int(env_params.last)
    bars = np.concatenate([market.bars, market.volume[:, :, None]], axis=-1)
    context = features.context_rows(spec, market)
    limits = np.asarray(env_params.limits)[: len(HARD_LIMITS)]
    mask = np.ones(market.num_assets, np.float32)
    account = ledger.open_account(market.num_assets, env_params.rules)
    vector = np.asarray(ledger.account_vector(account))
    is_ruined = np.bool_(False)
    steps = []
    for t in range(last):
        if t == first:
            policy.forget()  # as an episode begins; the bars before it fill the window
        decision = policy.decide(bars[t], context[t], market.clock[t], mask, vector, limits)
        if t < first:
            continue
        target = np.where(is_ruined, np.float32(0), decision.target)
        account, facts = _trade(account, target, env_params, jnp.int32(t + 1))
        vector, move, is_ruined = jax.device_get(facts)
        steps.append((move, np.asarray(decision.action), is_ruined))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *steps)
    return record(stacked, market, env_params, name="agent, ONNX", span=span)


def compare(replayed: Backtest, backtest: Backtest) -> str:
    """One line: a replay beside the backtest of the same policy in JAX."""
    gaps = np.abs(replayed.action.astype(np.float64) - backtest.action)
    differing = np.flatnonzero(gaps > TOLERANCE)
    upto = int(differing[0]) + 1 if len(differing) else len(backtest.equity)
    gap = np.abs(replayed.equity[:upto] / backtest.equity[:upto] - 1.0).max()
    first = f", the first at {backtest.timestamps[differing[0]]}" if len(differing) else ""
    return (
        f"ONNX replay: {len(backtest.action):,} decisions, {len(differing)} other than in JAX"
        f"{first}; equity within {gap:.1e}{' up to there' if first else ''}"
    )


@jax.jit
def _trade(
    account: ledger.Account, target: jax.Array, env_params: EnvParams, index: jax.Array
) -> tuple[ledger.Account, tuple[jax.Array, ledger.Move, jax.Array]]:
    """The environment's order to a target f32[A], and the ledger over one bar: the account after
    it; its vector, the move, whether it is ruined.
    """
    bar = env_params.tape.bar(index)
    none = jnp.int32(0)
    request = Request(exposure=target, invalid=none, clipped=none)
    order = order_for(account, target, request, bar, env_params)
    account, move = ledger.step(account, order, bar, env_params.rules)
    return account, (ledger.account_vector(account), move, account.is_ruined)
