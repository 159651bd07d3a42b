"""Does an environment keep to gymnax 1.x? One small check per promise, for any environment.

    from tests.kit import check_environment
    check_environment(env, params, jax.random.key(0), steps=64)

`reset(key, params) -> obs, state`; `step(key, state, action, params) -> obs, state, reward,
terminated, truncated, info`, which begins the next episode by itself; `step_env`, the same without;
`info` with `final_observation`; `params.max_steps_in_episode`, `state.time`; spaces. Where `info`
has `terminated`, `truncated` or `final_state`, they are held to as well. A check raises
AssertionError with what is wrong; `check_environment` names the check.
"""

import copy
import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

NUM_ENVS = 3
SMALL_BYTES = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """An environment, and how to look at it.

    steps: of the walk with random actions, in which the clock ends an episode about four times;
    other_params: values for which the step must not be compiled anew, by default all floating-point
    leaves a little larger; ignores_key: whether `step` promises not to use its key.
    """

    env: Any
    params: Any
    key: jax.Array
    steps: int = 64
    other_params: Any = None
    ignores_key: bool = False

    @functools.cached_property
    def max_steps(self) -> int:
        """Steps after which the clock ends an episode of the walk."""
        return max(self.steps // 4, 1)

    @functools.cached_property
    def short(self) -> Any:
        """The parameters with short episodes."""
        return with_max_steps(self.params, self.max_steps)

    @functools.cached_property
    def walk(self) -> dict[str, Any]:
        """`steps` steps with random actions, see `roll`."""
        return roll(self.env, self.short, self.key, self.steps)


def check_environment(env: Any, params: Any, key: jax.Array, **options: Any) -> None:
    """Run every check in `CHECKS`; `options` are those of `Case`.

    Raises:
        AssertionError: the name of the check that failed, and what is wrong.
    """
    case = Case(env=env, params=params, key=key, **options)
    for name, check in CHECKS.items():
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


# The checks


def check_spaces(case: Case) -> None:
    """Observations, before and after a reset, and sampled actions lie in their spaces."""
    seen = case.env.observation_space(case.short)
    actions = case.env.action_space(case.short)
    for obs in (case.walk["obs"], case.walk["info"]["final_observation"]):
        assert _contains(seen, obs), f"an observation is not in {seen}"
    assert _contains(actions, case.walk["action"]), f"sampled actions are not in {actions}"


def check_structure(case: Case) -> None:
    """Tree, shapes and dtypes (weak or not) of obs and state never change after reset."""
    obs, state = jax.eval_shape(case.env.reset, case.key, case.params)
    action = _sample_action(case)
    step = jax.eval_shape(case.env.step, case.key, state, action, case.params)
    _require_same_types(obs, step[0], "obs")
    _require_same_types(state, step[1], "state")
    _require_same_types(obs, step[5]["final_observation"], "final_observation")
    if "final_state" in step[5]:
        _require_same_types(state, step[5]["final_state"], "final_state")
    unreset = jax.eval_shape(case.env.step_env, case.key, state, action, case.params)
    _require_same_types((obs, state), unreset[:2], "step_env")


def check_scalars(case: Case) -> None:
    """The reward is f32[], the two flags bool[], and `info` repeats the flags."""
    walk = case.walk
    for name, dtype in (("reward", "float32"), ("terminated", "bool"), ("truncated", "bool")):
        got = (walk[name].dtype.name, walk[name].shape[1:])
        assert got == (dtype, ()), f"{name} is {got}, not {(dtype, ())}"
        if name in walk["info"]:
            np.testing.assert_array_equal(walk["info"][name], walk[name], f"info[{name!r}]")


def check_finite(case: Case) -> None:
    """No observation and no reward is infinite or no number."""
    for name in ("obs", "reward", "unreset"):
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(case.walk[name]))
        assert finite, f"{name} is not finite"


def check_compiled(case: Case) -> None:
    """A compiled reset and a compiled step do what they do when run plainly."""
    one_step = with_max_steps(case.params, 1)

    def play(number: int) -> Any:
        key = jax.random.fold_in(case.key, number)
        obs, state = case.env.reset(key, one_step)
        return obs, case.env.step(key, state, _sample_action(case), one_step)

    with jax.disable_jit():
        plain = play(0)
    _require_close(play(0), plain, "plain")


def check_batch(case: Case) -> None:
    """Environments in a batch, on one set of parameters, do what each does alone."""
    keys = jax.random.split(case.key, NUM_ENVS)
    each = [draw(case.env, case.short, key, case.steps) for key in keys]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    batch = jax.vmap(_roll, in_axes=(None, None, 0, 0))(case.env, case.short, *stacked)
    batch = jax.tree.map(np.asarray, batch)
    for number, key in enumerate(keys):
        alone = roll(case.env, case.short, key, case.steps)
        _require_close(_rows(batch, number), alone, "in a batch")


def check_deterministic(case: Case) -> None:
    """The same walk again is the same to the last bit."""
    _require_equal(roll(case.env, case.short, case.key, case.steps), case.walk, "again")


def check_reset(case: Case) -> None:
    """After a last step obs and state are a new episode's; `info` keeps the step's own."""
    walk, info = case.walk, case.walk["info"]
    done = walk["terminated"] | walk["truncated"]
    assert done.any(), f"no episode ended within {case.steps} steps"
    following = np.where(done, 0, walk["before"].time + 1)
    np.testing.assert_array_equal(walk["state"].time, following, "state.time")
    _require_close(_rows(walk["obs"], done), _rows(walk["observed"], done), "obs of a reset")
    names = {"final_observation": "obs", "final_state": "state"}
    for final, now in names.items():
        if final in info:
            _require_equal(_rows(info[final], ~done), _rows(walk[now], ~done), final)


def check_step_env(case: Case) -> None:
    """`step` is `step_env` but for the reset: reward, terminated, final observation and state.

    `step_env` is given the first half of the key, as gymnax does.
    """
    walk, info = case.walk, case.walk["info"]
    obs, state, reward, terminated = walk["unreset"]
    _require_close((walk["reward"], walk["terminated"]), (reward, terminated), "step_env")
    _require_close(info["final_observation"], obs, "final_observation")
    if "final_state" in info:
        _require_close(info["final_state"], state, "final_state")


def check_flags(case: Case) -> None:
    """A step is never both terminated and truncated."""
    both = case.walk["terminated"] & case.walk["truncated"]
    assert not both.any(), f"step {both.argmax()} is both terminated and truncated"


def check_clock(case: Case) -> None:
    """An episode ends at `max_steps_in_episode`, truncated unless it terminates there."""
    walk = case.walk
    length = walk["before"].time + 1
    ended = walk["terminated"] | walk["truncated"]
    assert (length <= case.max_steps).all(), f"an episode goes on after {case.max_steps} steps"
    assert ended[length == case.max_steps].all(), "an episode does not end at the limit"
    assert walk["truncated"].any(), f"no episode of {case.max_steps} steps was truncated"
    assert (length[walk["truncated"]] == case.max_steps).all(), "truncated before the limit"


def check_retrace(case: Case) -> None:
    """Other values of the parameters, keys and states run in the same program."""
    traces = []

    @jax.jit
    def step(key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        traces.append(None)
        return case.env.step(key, state, action, params)

    _, state = case.env.reset(case.key, case.params)
    action = _sample_action(case)
    _, state, *_ = step(case.key, state, action, case.params)
    others = case.other_params or jax.tree.map(_slightly_larger, case.params)
    step(jax.random.fold_in(case.key, 1), state, action, others)
    assert len(traces) == 1, "compiled anew for other values"


def check_equality(case: Case) -> None:
    """An environment with the same choices is equal and hashes alike, so programs are shared."""
    twin = copy.copy(case.env)
    assert twin == case.env, "a copy is not equal: make it a frozen dataclass"
    assert hash(twin) == hash(case.env), "a copy has another hash"


def check_data(case: Case) -> None:
    """Data stays in the parameters: it is not copied into the state, nor into the program."""
    _, state = case.env.reset(case.key, case.params)
    arguments = (case.key, state, _sample_action(case), case.params)
    program = jax.jit(case.env.step).lower(*arguments).as_text()
    compiled_in = sum(len(digits) // 2 for digits in re.findall(r'"0x([0-9A-F]*)"', program))
    assert compiled_in < SMALL_BYTES, f"{compiled_in} bytes of constants are in the program"
    held, data = (max(map(_num_bytes, jax.tree.leaves(each))) for each in (state, case.params))
    assert held < max(data, SMALL_BYTES), f"the state holds {held} bytes of data"


def check_key(case: Case) -> None:
    """Where the environment promises it, the key changes nothing in a step."""
    if case.ignores_key:
        other = roll(case.env, case.short, case.key, case.steps, salt=1)
        _require_equal(other, case.walk, "step")


CHECKS: dict[str, Callable[[Case], None]] = {
    "structure": check_structure,
    "scalars": check_scalars,
    "spaces": check_spaces,
    "finite": check_finite,
    "flags": check_flags,
    "clock": check_clock,
    "reset": check_reset,
    "step_env": check_step_env,
    "key": check_key,
    "batch": check_batch,
    "retrace": check_retrace,
    "equality": check_equality,
    "data": check_data,
    "compiled": check_compiled,
    "deterministic": check_deterministic,
}


# What they are made of


def roll(env: Any, params: Any, key: jax.Array, steps: int, *, salt: int = 0) -> dict[str, Any]:
    """A walk with random actions, leaves [steps, ...]: all that `step` takes and gives.

    `before` is the state that a step began in, `observed` what `observe` makes of the state it
    ended in, `unreset` what `step_env` gives instead; `salt` changes the keys of the steps alone.
    """
    inputs = draw(env, params, key, steps, salt=salt)
    return jax.tree.map(np.asarray, _roll(env, params, *inputs))


def draw(env: Any, params: Any, key: jax.Array, steps: int, *, salt: int = 0) -> tuple[Any, Any]:
    """The key of a walk's reset, and the inputs of its steps: (key, key of `step_env`, action)."""
    reset_key, action_keys, step_keys = _keys(key, steps, salt)
    actions = jax.vmap(env.action_space(params).sample)(action_keys)
    return reset_key, (*step_keys, actions)


@functools.partial(jax.jit, static_argnames="steps")
def _keys(key: jax.Array, steps: int, salt: int) -> tuple[jax.Array, jax.Array, Any]:
    reset_key, action_key, step_key = jax.random.split(key, 3)
    step_keys = jax.random.split(jax.random.fold_in(step_key, salt), steps)
    inner_keys = jax.vmap(jax.random.split)(step_keys)[:, 0]
    return reset_key, jax.random.split(action_key, steps), (step_keys, inner_keys)


@functools.partial(jax.jit, static_argnames="env")
def _roll(env: Any, params: Any, reset_key: jax.Array, inputs: Any) -> dict[str, Any]:
    def step(before: Any, row: tuple[jax.Array, jax.Array, Any]) -> tuple[Any, dict[str, Any]]:
        step_key, inner_key, action = row
        outcome = env.step(step_key, before, action, params)
        names = ("obs", "state", "reward", "terminated", "truncated", "info")
        record = dict(zip(names, outcome, strict=True)) | {"before": before, "action": action}
        record["observed"] = env.observe(step_key, record["state"], action, params)
        record["unreset"] = env.step_env(inner_key, before, action, params)[:4]
        return record["state"], record

    return jax.lax.scan(step, env.reset(reset_key, params)[1], inputs)[1]


def with_max_steps(params: Any, max_steps: int) -> Any:
    """Parameters with another length of episodes, of the same dtype."""
    old = params.max_steps_in_episode
    new = jnp.asarray(max_steps, old.dtype) if isinstance(old, jax.Array) else max_steps
    return params.replace(max_steps_in_episode=new)


def _sample_action(case: Case) -> Any:
    return case.env.action_space(case.params).sample(case.key)


def _slightly_larger(leaf: Any) -> Any:
    is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    return leaf * 1.001 if is_float else leaf


def _num_bytes(leaf: Any) -> int:
    return math.prod(jnp.shape(leaf)) * jnp.result_type(leaf).itemsize


def _rows(tree: Any, chosen: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[chosen], tree)


def _contains(space: Any, value: Any) -> bool:
    """Whether a space holds every element of a batch, shapes and dtypes included."""
    if isinstance(space, spaces.Dict):
        part = value.get if isinstance(value, dict) else functools.partial(getattr, value)
        return all(_contains(inner, part(name)) for name, inner in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return all(map(_contains, space.spaces, value))
    fits = value.shape[1:] == tuple(space.shape) and value.dtype == space.dtype
    return bool(fits and jax.vmap(space.contains)(value).all())


def _require_same_types(expected: Any, got: Any, what: str) -> None:
    assert jax.tree.structure(expected) == jax.tree.structure(got), f"{what}: another tree"
    paths = jax.tree_util.tree_leaves_with_path(expected)
    for (path, leaf), other in zip(paths, jax.tree.leaves(got), strict=True):
        before, after = ((x.shape, x.dtype.name, x.weak_type) for x in (leaf, other))
        where = f"{what}{jax.tree_util.keystr(path)}"
        assert before == after, f"{where} is {before} after reset, {after} after a step"


def _require_equal(got: Any, expected: Any, what: str) -> None:
    _require_close(got, expected, what, tolerance=0.0)


def _require_close(got: Any, expected: Any, what: str, *, tolerance: float = 1e-4) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected), f"{what}: another tree"
    paths = jax.tree_util.tree_leaves_with_path(got)
    for (path, leaf), other in zip(paths, jax.tree.leaves(expected), strict=True):
        where = f"{what}{jax.tree_util.keystr(path)}"
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            np.testing.assert_allclose(leaf, other, tolerance, tolerance / 10, err_msg=where)
        else:
            assert bool((leaf == other).all()), f"{where} differs"
