"""Decisions kept for a trainer, and the trainer that goes on with them."""

import dataclasses
import functools
import io
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxtrade.agents.rollout import see
from jaxtrade.experiments import finetune as tuning
from jaxtrade.experiments import train as job
from jaxtrade.experiments.config import compose
from jaxtrade.live import online
from jaxtrade.live.deciding import Made
from jaxtrade.live.online import SYNC_EVERY, Step, StepLog, read_steps, step_of
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.registry import Registry
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic import make_market
from tests.live_bars import bar, market_rows
from tests.small import SMALL


def step(number=0, **changes) -> Step:
    known = {
        "start_s": 60 * number,
        "seconds": 60,
        "symbols": ("X",),
        "bars": ((100.0, 102.5, 98.25, 0.1 + number, 7.0),),
        "context": (("vix", 15.5),),
        "account": (0.5, 0.0, 3.0, 0.01, -0.02, 1e-3),
        "action": (2.0,),
        "reward": 1e-4 * number,
        "model": "ab" * 32,
    }
    return Step(**{**known, **changes})


# The file


def test_steps_come_back_as_they_were(tmp_path):
    path = tmp_path / "steps.log"
    steps = [step(number) for number in range(2 * SYNC_EVERY + 3)]
    with StepLog(path) as log:
        for each in steps[:70]:
            log.append(each)
    assert read_steps(path) == steps[:70]
    with StepLog(path) as log:
        for each in steps[70:]:
            log.append(each)
        assert read_steps(path) == steps  # while it is open
    assert read_steps(path) == steps


@pytest.mark.parametrize("block", [1, 64, online.BLOCK])
@pytest.mark.parametrize("lost", [1, 5, 100])
def test_a_line_cut_short_is_dropped_and_written_over(tmp_path, monkeypatch, lost, block):
    monkeypatch.setattr(online, "BLOCK", block)
    path = tmp_path / "steps.log"
    with StepLog(path) as log:
        log.append(step(0))
        log.append(step(1))
    path.write_bytes(path.read_bytes()[:-lost])
    assert read_steps(path) == [step(0)]
    with StepLog(path) as log:
        log.append(step(2))
    assert read_steps(path) == [step(0), step(2)]


def test_a_line_that_was_altered_is_named(tmp_path):
    path = tmp_path / "steps.log"
    with StepLog(path) as log:
        for number in range(3):
            log.append(step(number))
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"start_s":60', b'"start_s":61'))
    with pytest.raises(JaxtradeError, match=r"steps\.log, line 2: was altered"):
        read_steps(path)
    with pytest.raises(JaxtradeError, match="cannot open"):
        StepLog(tmp_path / "absent" / "steps.log")


class Seeing:
    """A policy that sees one context column of SPY's."""

    sha256 = "m"
    metadata = SimpleNamespace(features=SimpleNamespace(context=("spy_vix",)), symbols=("SPY",))


def test_the_step_of_a_decision():
    made = Made(
        start_s=60, closes=(101.0,), requested=(1.0,), target=(0.5,), action=(2.0,), held=""
    )
    row = (bar(60, 101.0, symbol="SPY.US", context=(("vix", 20.0), ("rate", 1.0))),)
    account = np.float32([0.5, 0, 0, 0, 0, 0])
    got = step_of(row, made, account, reward=0.01, policy=Seeing)
    assert (got.bars, got.context) == (((101.0, 103.0, 99.0, 101.0, 5.0),), (("spy_vix", 20.0),))
    assert (got.action, got.account, got.reward) == ((2.0,), (0.5, 0, 0, 0, 0, 0), 0.01)
    assert (got.symbols, got.model) == (("SPY.US",), "m")
    held = dataclasses.replace(made, held="warming up")
    assert step_of(row, held, account, reward=0.0, policy=Seeing).action == ()


# The trainer


OFF_POLICY = (
    "agent=dqn",
    *(each for each in SMALL if "num_minibatches" not in each),
    "agent.replay_size=1024",
    "agent.learning_starts=256",
)


@functools.cache
def trained(kind, folder):
    settings = SMALL if kind == "ppo" else OFF_POLICY
    settings = [each for each in settings if "total_steps" not in each]
    config = compose([*settings, "total_steps=1024", f"output_dir={folder}", f"name=live-{kind}"])
    run, _ = job.train(config, Console(file=io.StringIO()))
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def lived(market, *, seed=0, gap=()):
    """Steps on every bar of a market, by chance; some missing, some held."""
    rng = np.random.default_rng(seed)
    steps = []
    for t, row in enumerate(market_rows(market)):
        vector = rng.normal(0, [0.5, 0.02, 1, 0.01, 0.02, 0.01]).astype(np.float32)
        vector[2:4] = np.abs(vector[2:4])
        steps.append(
            Step(
                start_s=row[0].start_s,
                seconds=row[0].seconds,
                symbols=("LIVE",),
                bars=((row[0].open, row[0].high, row[0].low, row[0].close, row[0].volume),),
                context=(),
                account=tuple(vector.tolist()),
                action=() if t in gap else (float(rng.integers(0, 3)),),
                reward=float(rng.normal(0, 0.01)),
                model="m",
            )
        )
    return steps


def written(path, steps):
    with StepLog(path) as log:
        for each in steps:
            log.append(each)
    return path


def test_the_bars_of_steps_are_a_market_again():
    market = make_market(seed=5, num_bars=300)
    again = tuning.market_of(lived(market), market.spec)
    np.testing.assert_array_equal(again.timestamps, market.timestamps)
    np.testing.assert_allclose(again.bars[1:], market.bars[1:], atol=1e-7)
    np.testing.assert_array_equal(again.volume, market.volume)
    spec = dataclasses.replace(market.spec, bar_seconds=7)
    with pytest.raises(JaxtradeError, match=r"in bars of .* s, the run's of"):
        tuning.market_of(lived(market), spec)
    with pytest.raises(JaxtradeError, match="the column 'vix' is not in all of them"):
        tuning.market_of(lived(market), market.spec, ("vix",))


@pytest.mark.parametrize(
    "kind",
    [pytest.param("ppo", marks=pytest.mark.slow), pytest.param("dqn", marks=pytest.mark.soak)],
)
def test_a_run_goes_on_with_live_bars_and_becomes_a_version(kind, folder, tmp_path):
    run = trained(kind, folder)
    path = written(tmp_path / "steps.log", lived(make_market(seed=5, num_bars=400)))
    options = {"registry": tmp_path / "models", "total_steps": 2_048}
    with pytest.raises(JaxtradeError, match="has 400 steps: wait for 401"):
        tuning.finetune(run.folder, path, warmup=401, **options)
    done = tuning.finetune(run.folder, path, warmup=400, **options)
    assert np.isfinite([done.before, done.after]).all()
    with Registry(tmp_path / "models") as models:
        bundle = OnnxPolicy(models.path(done.version.number))
        assert models.active(f"live-{kind}") is None
    assert (done.version.agent, done.version.is_active) == (f"live-{kind}", False)
    assert bundle.sha256 != OnnxPolicy(run.policy).sha256
    assert bundle.metadata.columns == OnnxPolicy(run.policy).metadata.columns


@pytest.mark.soak
def test_live_decisions_are_in_the_replay(folder):
    setup = job.build_setup(trained("dqn", folder).read_config())
    state, _, _ = job.restore(trained("dqn", folder), setup)
    steps = lived(make_market(seed=5, num_bars=400), gap=(100, 200))
    market = tuning.market_of(steps, setup.market.spec)
    learning, _ = tuning._spans(setup, market)
    state = tuning._begun(setup, state, learning, 1_024)
    assert int(state.learner.replay.filled) == 0
    state = tuning._with_live(setup, state, steps, market, learning)
    kept = state.learner.replay
    length, envs = int(kept.filled), kept.num_envs
    assert (length, envs, kept.capacity) == (16, 16, 64)
    usable = [t for t in range(int(learning.last)) if steps[t].action][-length * envs :]
    rows = kept.rows
    for n in (0, 7, 15):
        for k in (0, 9, 15):
            t = usable[n * length + k]
            one, after = (
                jax.tree.map(lambda x, k=k, n=n: x[k, n], part) for part in (rows.seen, rows.final)
            )
            pair = jax.tree.map(lambda *both: jnp.stack(both), one, after)
            obs = see(setup.env, learning, pair)
            vectors = np.float32([steps[t].account, steps[t + 1].account])
            wanted = jax.vmap(tuning.features.account_features)(jnp.asarray(vectors))
            np.testing.assert_allclose(obs.account, wanted, atol=2e-6)
            table = np.asarray(learning.table)
            np.testing.assert_array_equal(obs.market[0, -1], table[t].reshape(-1))
            np.testing.assert_array_equal(obs.market[1, -1], table[t + 1].reshape(-1))
            assert float(rows.reward[k, n]) == np.float32(steps[t + 1].reward)
            assert int(rows.action[k, n]) == steps[t].action[0]
            ends = k == length - 1 or t + 1 in (100, 200) or t + 1 == int(learning.last)
            assert bool(rows.truncated[k, n]) == ends
    assert not bool(rows.terminated.any())
