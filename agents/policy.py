"""From what was trained to the policy that trades."""

from typing import Any

import jax.numpy as jnp

from jaxtrade.decision import Policy
from jaxtrade.specs import JaxtradeError, account_fields


def greedy_policy(agent: Any, actor: Any, env: Any, env_params: Any) -> Policy:
    """The greedy policy of an actor: what is backtested, exported and traded.

    Its features, levels and normaliser are those of the environment it was trained in.

    Raises:
        JaxtradeError: see `require_plain_account`.
    """
    require_plain_account(env, env_params)
    return Policy(
        features=env.features,
        levels=env.levels,
        normaliser=env_params.normaliser,
        assess=lambda obs: agent.assess(actor, obs, jnp.zeros((obs.account.shape[0], 0)))[:2],
    )


def require_plain_account(env: Any, env_params: Any) -> None:
    """Raise JaxtradeError if an agent sees more of its account here than a decision is told.

    That are orders under way, what the risk review remembers, and a history.
    """
    seen = env.observation_space(env_params).spaces["account"].shape[0]
    told = len(account_fields(env.num_assets))
    if seen != told:
        raise JaxtradeError(
            f"{env.name}: the agent sees {seen} numbers of its account, a decision is told {told}: "
            "a policy cannot be made of it with latency, participation, history or limits that "
            "remember"
        )
