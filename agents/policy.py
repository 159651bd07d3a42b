"""From what was trained to the policy that trades."""

import functools
from typing import Any

from jaxtrade.decision import Policy


def greedy_policy(agent: Any, learner: Any, env: Any, env_params: Any) -> Policy:
    """The greedy policy of a learner: what is backtested, exported and traded.

    Its features, levels and normaliser are those of the environment it was trained in.
    """
    return Policy(
        features=env.features,
        levels=env.levels,
        normaliser=env_params.normaliser,
        assess=functools.partial(agent.assess, learner),
    )
