"""What stops a run: which quantity is named, and what may pass."""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxtrade.agents import TrainState
from jaxtrade.experiments.health import LARGEST, require_healthy
from jaxtrade.specs import JaxtradeError

MEANS = {
    "approx_kl": 0.01,
    "entropy": 1.0,
    "grad_norm": 0.5,
    "value_loss": 1.0,
    "episodes": 0.0,
    "episode_return": math.nan,
    "episode_length": math.nan,
    "reward": 0.1,
    "param_norm": 9.0,
}


def state(**learner: jax.Array) -> TrainState:
    empty = jnp.zeros(0)
    rest = dict.fromkeys(("obs", "hidden", "episode_return", "episode_length"), empty)
    rest |= dict.fromkeys(("key", "iteration", "num_iterations"), empty)
    return TrainState(learner=learner, env_state={"price": jnp.float32(jnp.nan)}, **rest)


GOOD = {"kernel": jnp.ones(3), "count": jnp.int32(1)}


def test_means_of_no_episode_and_nans_of_environments_and_replays_pass() -> None:
    require_healthy(MEANS, state(**GOOD, replay=jnp.full(2, jnp.nan)), first=1, last=4)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"entropy": math.nan}, "entropy is nan"),
        ({"entropy": math.nan, "grad_norm": math.inf}, "grad_norm is inf"),
        ({"grad_norm": math.nan, "value_loss": -math.inf}, "value_loss is -inf"),
        ({"reward": math.nan, "value_loss": math.nan}, "reward is nan"),
        ({"episodes": 2.0}, "episode_return is nan"),
        ({"value_loss": 2 * LARGEST}, r"value_loss is 2e\+08"),
        ({"grad_norm": 2 * LARGEST}, r"grad_norm is 2e\+08"),
    ],
)
def test_the_first_cause_is_named_with_its_iterations(changes, name) -> None:
    with pytest.raises(JaxtradeError, match=f"in iterations 1,001 to 1,016: {name}: ") as error:
        require_healthy({**MEANS, **changes}, state(**GOOD), first=1_001, last=1_016)
    assert "\n" not in str(error.value)


def test_a_large_number_that_is_no_loss_and_no_norm_passes() -> None:
    require_healthy({**MEANS, "temperature": 2 * LARGEST}, state(**GOOD), first=1, last=1)


def test_what_is_learned_is_looked_at_itself() -> None:
    bad = {"kernel": jnp.asarray([1.0, jnp.inf])}
    with pytest.raises(JaxtradeError, match=r"learner.*kernel is nan: lower agent.learning_rate"):
        require_healthy(MEANS, state(**{**GOOD, **bad}), first=1, last=1)
