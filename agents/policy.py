"""From what was trained to the policy that trades."""

import dataclasses
from typing import Any

import jax

from jaxtrade.agents.masks import MasksActions
from jaxtrade.agents.settings import Settings
from jaxtrade.decision import Observation, Policy
from jaxtrade.specs import JaxtradeError, account_fields


def greedy_policy(agent: Any, actor: Any, env: Any, env_params: Any) -> Policy:
    """The greedy policy of an actor: what is backtested, exported and traded.

    Its features, actions and normaliser are those of the environment it was trained in. It works
    in float32, in whatever type it was trained.

    Raises:
        JaxtradeError: see `require_plain_account`; or actions that a decision cannot say.
    """
    require_plain_account(env, env_params)
    if isinstance(agent, Settings):
        agent = dataclasses.replace(agent, bfloat16=False)

    def assess(obs: Observation, hidden: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return tuple(agent.assess(actor, obs, hidden))

    return Policy(
        features=env.features,
        normaliser=env_params.normaliser,
        actions=env.actions,
        head=actor.head,
        assess=assess,
        hidden_size=agent.hidden_size,
        masks=isinstance(agent, MasksActions) and agent.mask_actions,
    )


def require_plain_account(env: Any, env_params: Any) -> None:
    """Raise JaxtradeError if an agent sees more of its account here than a decision is told, or
    does more than a decision can say.

    That are orders under way, what the risk review remembers, and a history; and prices.
    """
    _ = env.actions.spec  # raises where a decision has no word for it
    seen = env.observation_space(env_params).spaces["account"].shape[0]
    told = len(account_fields(env.num_assets))
    if seen != told:
        raise JaxtradeError(
            f"{env.name}: the agent sees {seen} numbers of its account, a decision is told {told}: "
            "a policy cannot be made of it with latency, participation, history or limits that "
            "remember"
        )
