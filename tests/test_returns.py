import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade.agents.returns import discounted, gae
from tests import draws


def column(*numbers):
    """f32[T, 1]."""
    return jnp.asarray(numbers, jnp.float32)[:, None]


def flags(*numbers):
    """bool[T, 1]."""
    return jnp.asarray(numbers, bool)[:, None]


# gamma = lambda = 1/2. Errors: 1 + 2/2 - 1 = 1, 2 + 2/2 - 1 = 2, 3 + 4/2 - 2 = 3.
REWARD, VALUE, NEXT_VALUE = column(1, 2, 3), column(1, 1, 2), column(2, 2, 4)


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        # 3; 2 + 3/4 = 2.75; 1 + 2.75/4 = 1.6875
        (flags(0, 0, 0), flags(0, 0, 0), [1.6875, 2.75, 3.0]),
        # The second step ends it, for good: its error is 2 - 1 = 1, and nothing is added to it.
        (flags(0, 1, 0), flags(0, 0, 0), [1.25, 1.0, 3.0]),
        # The clock ends it: its error stays 2, the value of what it led to counts.
        (flags(0, 0, 0), flags(0, 1, 0), [1.5, 2.0, 3.0]),
        # Both at once, as gymnax may say: an end for good.
        (flags(0, 1, 0), flags(0, 1, 0), [1.25, 1.0, 3.0]),
        # The last step: 3 - 2 = 1; 2 + 1/4 = 2.25; 1 + 2.25/4 = 1.5625
        (flags(0, 0, 1), flags(0, 0, 0), [1.5625, 2.25, 1.0]),
    ],
)
def test_gae_by_hand(terminated, truncated, expected):
    advantage, target = gae(
        REWARD, VALUE, NEXT_VALUE, terminated, truncated, gamma=0.5, gae_lambda=0.5
    )
    np.testing.assert_array_equal(advantage[:, 0], expected)
    np.testing.assert_array_equal(target, advantage + VALUE)


def random_rollout(seed, num_steps=50, num_envs=7):
    """Reward, value and next value f64[T, N]; terminated and truncated bool[T, N]."""
    generator = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    numbers = generator.standard_normal((3, *shape))
    ends = generator.random((2, *shape)) < 0.08
    return (*numbers, ends[0], ends[1] & ~ends[0])


def gae_by_definition(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    """Each advantage as its own sum of errors up to the end of the episode, in float64."""
    num_steps, num_envs = reward.shape
    advantage = np.zeros((num_steps, num_envs))
    for n in range(num_envs):
        for start in range(num_steps):
            weight = 1.0
            for t in range(start, num_steps):
                led_to = 0.0 if terminated[t, n] else next_value[t, n]
                advantage[start, n] += weight * (reward[t, n] + gamma * led_to - value[t, n])
                weight *= gamma * gae_lambda
                if terminated[t, n] or truncated[t, n]:
                    break
    return advantage


@pytest.mark.parametrize(
    ("gamma", "gae_lambda"), [(0.99, 0.95), (0.9, 0.0), (1.0, 1.0), (0.0, 0.5)]
)
def test_gae_is_its_definition(gamma, gae_lambda):
    numbers = random_rollout(seed=1)
    expected = gae_by_definition(*numbers, gamma, gae_lambda)
    arrays = [jnp.asarray(each, bool if each.dtype == bool else jnp.float32) for each in numbers]
    advantage, target = jax.jit(gae)(*arrays, gamma=gamma, gae_lambda=gae_lambda)
    np.testing.assert_allclose(advantage, expected, atol=2e-5)
    np.testing.assert_allclose(target, expected + numbers[1], atol=2e-5)


def test_with_lambda_one_the_target_is_the_discounted_sum_of_rewards():
    reward, value, final_value, terminated, truncated = random_rollout(seed=2)
    # The values of what a step led to: the next step's, the final one's where the clock ran out.
    next_value = np.where(truncated, final_value, np.append(value[1:], final_value[-1:], axis=0))
    expected = np.zeros_like(reward)
    total = final_value[-1]
    for t in reversed(range(len(reward))):
        total = np.where(truncated[t], final_value[t], total)
        total = reward[t] + 0.97 * np.where(terminated[t], 0.0, total)
        expected[t] = total
    arrays = [np.float32(each) for each in (reward, value, next_value)]
    _, target = gae(*arrays, terminated, truncated, gamma=0.97, gae_lambda=1.0)
    np.testing.assert_allclose(target, expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["terminated", "truncated"])
def test_nothing_flows_across_the_end_of_an_episode(kind):
    end = jnp.zeros((10, 3), bool).at[4].set(True)
    never = jnp.zeros((10, 3), bool)
    ends = (end, never) if kind == "terminated" else (never, end)
    before, value, next_value = draws.normal(3, 10, 3)
    after = before.at[5:].add(100.0)
    first, second = (
        gae(reward, value, next_value, *ends, gamma=0.99, gae_lambda=0.95)[0]
        for reward in (before, after)
    )
    np.testing.assert_array_equal(first[:5], second[:5])
    assert (first[5:] != second[5:]).all()


def test_only_a_truncation_asks_what_came_last():
    value = column(1, 1, 1)

    def advantage(next_value, **ends):
        given = {"terminated": flags(0, 0, 0), "truncated": flags(0, 0, 0), **ends}
        return gae(REWARD, value, next_value, **given, gamma=0.9, gae_lambda=0.9)[0]

    end = flags(0, 1, 0)
    low, high = column(1, 5, 1), column(1, 6, 1)
    difference = advantage(high, truncated=end) - advantage(low, truncated=end)
    # 0.9 at the step itself, and 0.9 x 0.81 at the one before.
    np.testing.assert_allclose(difference[:, 0], [0.729, 0.9, 0.0], atol=1e-6)
    np.testing.assert_array_equal(advantage(high, terminated=end), advantage(low, terminated=end))


def test_discounted_by_hand():
    # From 4 and with gamma 1/2: 2 + 1 = 3; 1.5 + 2 = 3.5, the end; 3; 1.5 + 1 = 2.5.
    carry, sums = discounted(jnp.float32([4.0]), column(1, 2, 3, 1), flags(0, 1, 0, 0), gamma=0.5)
    np.testing.assert_array_equal(sums[:, 0], [3.0, 3.5, 3.0, 2.5])
    np.testing.assert_array_equal(carry, [2.5])
    carry, _ = discounted(jnp.float32([4.0]), column(1, 2), flags(0, 1), gamma=0.5)
    np.testing.assert_array_equal(carry, [0.0])


def test_discounted_goes_on_where_it_stopped():
    reward, _, _, done, _ = random_rollout(seed=3)
    reward = jnp.asarray(reward, jnp.float32)
    start = jnp.ones(reward.shape[1])
    carry, whole = discounted(start, reward, done, gamma=0.9)
    middle, first = discounted(start, reward[:20], done[:20], gamma=0.9)
    end, second = discounted(middle, reward[20:], done[20:], gamma=0.9)
    np.testing.assert_array_equal(whole, np.concatenate([first, second]))
    np.testing.assert_array_equal(carry, end)
