"""Populations: members train as they would alone, and the best is kept as it was judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import agents
from jaxtrade.agents import loop, population
from jaxtrade.agents.population import sweep, train_population
from jaxtrade.specs import JaxtradeError
from tests.probes import AGENT, PER_ITERATION, PROBES, Table

ENV = Table()
PARAMS = PROBES["a smaller reward sooner"].params
SEEDS, RATES = (3, 3, 4), (1e-3, 1e-2, 1e-2)
KEYS = [jax.random.key(seed) for seed in SEEDS]


def populate(agent=None, *, keys=None, iterations=4, **options):
    agent = sweep(AGENT, learning_rate=RATES) if agent is None else agent
    options = {"chunk_iterations": 2, **options}
    return train_population(
        agent,
        ENV,
        PARAMS,
        jnp.stack(KEYS) if keys is None else keys,
        total_steps=iterations * PER_ITERATION,
        **options,
    )


@pytest.fixture(scope="module")
def trained():
    return populate()


@pytest.fixture(params=["in turn", pytest.param("at once", marks=pytest.mark.slow)])
def either(request, trained, monkeypatch):
    """A population as on a CPU, and as on an accelerator."""
    if request.param == "in turn":
        return trained
    monkeypatch.setattr(population, "platform", lambda: "tpu")
    return populate()


def assert_close(one, other):
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


def test_members_train_as_they_would_alone(either):
    states, history, best = either
    assert best is None
    assert len(history) == 2
    for row, (key, rate) in enumerate(zip(KEYS, RATES, strict=True)):
        agent = AGENT.replace(learning_rate=np.float32(rate))
        alone, expected = loop.train(
            agent, ENV, PARAMS, key, total_steps=4 * PER_ITERATION, chunk_iterations=2
        )
        plain = (each.replace(key=jax.random.key_data(each.key)) for each in (states, alone))
        together, alone = plain
        assert_close([leaf[row] for leaf in jax.tree.leaves(together)], alone)
        for means, alone_means in zip(history, expected, strict=True):
            member = {name: values[row] for name, values in means.items()}
            assert member == pytest.approx(alone_means, rel=1e-3, abs=1e-4, nan_ok=True)
    assert len(set(history[-1]["policy_loss"])) == 3


def test_it_does_not_matter_how_it_is_cut_into_chunks(trained):
    whole = populate(chunk_iterations=4).states
    left, right = (jax.tree.leaves(each.learner) for each in (trained.states, whole))
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_score_belongs_to_the_parameters_that_are_kept_with_it():
    seen = []

    def judge(actors):
        """The third time all are worse, and one has no score."""
        seen.append(jax.tree.map(np.array, actors))
        return jnp.asarray([[0.0, 1.0, 0.5], [0.0, 0.0, 2.0], [np.nan, 1.0, 2.0]][len(seen) - 1])

    _, history, best = populate(iterations=6, judge=judge)
    assert [row["score"][1:] for row in history] == [[1.0, 0.5], [0.0, 2.0], [1.0, 2.0]]
    assert (best.member, best.iteration, best.score) == (2, 4, 2.0)
    assert best.actor.head == agents.distributions.Categorical(2)
    for kept, then, last in zip(*map(jax.tree.leaves, (best.actor, *seen[1:])), strict=True):
        np.testing.assert_array_equal(kept, then[2])
        assert (kept != last[2]).any()


def test_without_a_number_there_is_no_best():
    assert populate(iterations=2, judge=lambda _: jnp.full(3, jnp.nan)).best is None


def test_refreshed_parameters_are_shared(trained):
    asked = []

    def refresh(iteration):
        asked.append(iteration)
        return PARAMS.replace(reward=jnp.full((2, 2), 7.0, jnp.float32))

    _, history, _ = populate(refresh=refresh)
    assert asked == [2]
    assert history[0] == trained.history[0]
    for total, length in zip(
        history[1]["episode_return"], history[1]["episode_length"], strict=True
    ):
        assert total == pytest.approx(7.0 * length, rel=1e-6)


def test_keys_can_be_used_again_and_states_go_on(trained):
    keys = jnp.stack(KEYS)
    first = populate(keys=keys)
    assert first.history == populate(keys=keys).history == trained.history
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(first.states))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"num_envs": [8, 16]},
            "agent setting num_envs is part of the program: it has one value",
        ),
        (
            {"learning_rate": [1e-3, 1e-2], "gamma": [0.9]},
            "each member needs a value of each hyperparameter: "
            "there are {'learning_rate': 2, 'gamma': 1}",
        ),
        ({"gamma": [0.9, 1.1]}, "agent setting gamma is 1.1: give 0 to 1"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(JaxtradeError) as error:
        sweep(AGENT, **values)
    assert str(error.value) == message


def test_an_unknown_hyperparameter_is_told_the_nearest():
    with pytest.raises(JaxtradeError, match="did you mean 'learning_rate'"):
        sweep(AGENT, learning_rat=[1e-3])


def test_each_member_has_a_key():
    with pytest.raises(JaxtradeError, match=r"^3 members have 2 keys: give one for each$"):
        populate(keys=jnp.stack(KEYS[:2]))
