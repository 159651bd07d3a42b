"""A run from its start to its files: interrupted, resumed, refused, and what it learns."""

import dataclasses
import io
import json
import os
import pathlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from jaxtrade.agents import loop
from jaxtrade.experiments import train as job
from jaxtrade.experiments.backtest import BASELINES, agent_backtest
from jaxtrade.experiments.checkpoint import Checkpoints
from jaxtrade.experiments.config import compose
from jaxtrade.experiments.rundir import RunDirectory
from jaxtrade.specs import JaxtradeError
from tests.small import SMALL


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def small(folder: pathlib.Path, *overrides: str):
    return compose([*SMALL, f"output_dir={folder}", *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    screen = console()
    run, results = job.train(small(tmp_path_factory.mktemp("runs")), screen)
    return run, results, screen.file.getvalue()


def rows_but_speed(run: RunDirectory) -> list[dict]:
    return [
        {name: value for name, value in row.items() if name != "steps_per_second"}
        for row in run.read_metrics()
    ]


def test_a_run_holds_what_it_promises(finished) -> None:
    run, results, screen = finished
    assert run.read_config() == small(run.folder.parent.parent)
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert rows[-1]["step"] == 6144
    assert len(rows) == 24
    assert {"validation_sharpe", "entropy", "reward", "param_norm"} <= set(rows[0])
    assert "<html" in run.report.read_text()[:200].lower()
    trades = pd.read_parquet(run.trades)
    assert set(trades["policy"]) <= {"agent", *BASELINES} - {"flat"}
    assert "buy and hold" in set(trades["policy"])
    assert [result.name for result in results] == ["agent", *BASELINES]
    assert str(run.folder) in screen
    assert "validation Sharpe" in screen
    assert run.policy.stat().st_size > 1000


def test_the_best_policy_is_the_one_with_the_best_validation_sharpe(finished) -> None:
    run, _, _ = finished
    rows = run.read_metrics()
    best = max(rows, key=lambda row: row["validation_sharpe"])
    _, _, progress = job.restore(run, job.build_setup(run.read_config()))
    assert progress.best_sharpe == best["validation_sharpe"]
    assert progress.best_iteration == best["iteration"]


def test_the_best_score_is_that_of_the_parameters_saved_with_it(finished) -> None:
    run, _, _ = finished
    setup = job.build_setup(run.read_config())
    state, best, progress = job.restore(run, setup)
    scores = []
    for actor in (best, state.learner.actor):
        args = (setup.agent, actor, setup.env, setup.validation, setup.market)
        result = agent_backtest(*args, span="validation")
        scores.append(result.sharpe)
    assert scores[0] == progress.best_sharpe
    assert scores[1] == run.read_metrics()[-1]["validation_sharpe"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(finished, tmp_path) -> None:
    run, results, _ = finished
    again, repeated = job.train(small(tmp_path), console())
    assert rows_but_speed(again) == rows_but_speed(run)
    np.testing.assert_array_equal(repeated[0].equity, results[0].equity)
    other, _ = job.train(small(tmp_path, "seed=1"), console())
    assert rows_but_speed(other) != rows_but_speed(run)


TERMINATED = pytest.param(signal.SIGTERM, marks=pytest.mark.slow)


@pytest.mark.parametrize("number", [signal.SIGINT, TERMINATED])
def test_stopped_and_resumed_it_ends_as_if_uninterrupted(
    finished, tmp_path, monkeypatch, number
) -> None:
    run, results, _ = finished
    update = job.Display.update

    def interrupting(display, row) -> None:
        update(display, row)
        if row["iteration"] == 7:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(job.Display, "update", interrupting)
    with pytest.raises(job.Stopped) as stopped:
        job.train(small(tmp_path), console())
    cut = stopped.value.run
    assert cut.read_metrics()[-1]["iteration"] == 7
    assert not cut.policy.exists()
    monkeypatch.setattr(job.Display, "update", update)
    cut.append_metrics({"iteration": 8, "left": "by a crash before its checkpoint"})
    resumed, continued = job.resume(cut.folder, console())
    assert rows_but_speed(resumed) == rows_but_speed(run)
    np.testing.assert_array_equal(continued[0].equity, results[0].equity)
    assert pd.read_parquet(resumed.trades).equals(pd.read_parquet(run.trades))


def test_a_finished_run_resumed_writes_its_results_again(finished) -> None:
    run, results, _ = finished
    before = run.read_metrics()
    run.report.unlink()
    _, again = job.resume(run.folder, console())
    assert run.report.exists()
    assert run.read_metrics() == before
    np.testing.assert_array_equal(again[0].equity, results[0].equity)


def test_resuming_on_other_bars_is_refused(finished) -> None:
    run, _, _ = finished
    config = run.read_config()
    changed = dataclasses.replace(config, data=dataclasses.replace(config.data, seed=5))
    with pytest.raises(JaxtradeError, match=r"trained on other bars"):
        job.restore(run, job.build_setup(changed))


def test_no_run_no_checkpoint(tmp_path) -> None:
    with pytest.raises(JaxtradeError, match=r"not a run directory"):
        job.resume(tmp_path / "nothing", console())
    run = RunDirectory.create(small(tmp_path), "empty")
    with pytest.raises(JaxtradeError, match=r"no checkpoint"):
        job.restore(run, job.build_setup(run.read_config()))


def test_a_damaged_checkpoint_is_one_line(finished, tmp_path) -> None:
    run, _, _ = finished
    setup = job.build_setup(run.read_config())
    copy = RunDirectory(tmp_path)
    with Checkpoints(copy.checkpoints) as checkpoints:
        state, best, progress = job.restore(run, setup)
        checkpoints.save(3, state, best, progress)
    for path in (copy.checkpoints / "3" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    with pytest.raises(JaxtradeError, match=r"cannot read a checkpoint") as error:
        job.restore(copy, setup)
    assert "\n" not in str(error.value)


def test_training_that_diverges_names_the_loss_and_the_iterations(tmp_path) -> None:
    wild = ("agent.learning_rate=1e30", "agent.max_grad_norm=1e30")
    with pytest.raises(JaxtradeError, match=r"in iterations 1 to 1: policy_loss is nan: lower"):
        job.train(small(tmp_path, *wild), console())
    (folder,) = tmp_path.glob("*/*")
    assert not RunDirectory(folder).metrics.exists() or not RunDirectory(folder).read_metrics()


def poisoned_after(iterations: int):
    """`loop.chunks`, where rewards are not numbers after so many iterations."""
    real = loop.chunks

    def chunks(agent, env, env_params, state, **options):
        for latest, means in real(agent, env, env_params, state, **options):
            yield latest, means
            if int(latest.iteration) == iterations:
                break
        weights = env_params.rewards.weights * jnp.nan
        bad = env_params.replace(rewards=env_params.rewards.replace(weights=weights))
        yield from real(agent, env, bad, latest, **options)

    return chunks


def test_a_poisoned_reward_stops_the_run_and_leaves_the_last_good_checkpoint(
    finished, tmp_path, monkeypatch
) -> None:
    run, _, _ = finished
    monkeypatch.setattr(loop, "chunks", poisoned_after(9))
    with pytest.raises(JaxtradeError, match=r"in iterations 10 to 10: reward is nan: look at"):
        job.train(small(tmp_path), console())
    (folder,) = tmp_path.glob("*/*")
    cut = RunDirectory(folder)
    rows = rows_but_speed(cut)
    assert rows == rows_but_speed(run)[:9]
    state, best, progress = job.restore(cut, job.build_setup(cut.read_config()))
    assert int(state.iteration) == 9
    for leaf in jax.tree.leaves((state.learner, best)):
        assert np.isfinite(leaf).all()
    assert progress.best_sharpe == max(row["validation_sharpe"] for row in rows)


def test_too_few_rows_are_named_before_anything_is_written(tmp_path) -> None:
    with pytest.raises(JaxtradeError, match=r"has 200 rows, fewer than"):
        job.train(small(tmp_path, "data.num_bars=200", "env.episode_steps=256"), console())
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(JaxtradeError, match=r"device is 'tpu': this machine has cpu"):
        job.train(small(tmp_path, "device=tpu"), console())


@pytest.mark.soak
def test_it_trains_on_every_file_of_bars(data_folder, tmp_path) -> None:
    """Default settings but for the number of steps."""
    paths = [path for path in sorted(data_folder.glob("*.csv.gz")) if is_bars(path)]
    assert len(paths) >= 61
    for path in paths:
        overrides = ["data=csv", f"data.path={path}", f"output_dir={tmp_path}", "total_steps=40960"]
        run, results = job.train(compose(overrides), console())
        figures = {each.name: round(each.metrics()["sharpe"], 2) for each in results}
        print(path.name, figures, flush=True)
        assert run.report.exists() and run.policy.exists() and run.trades.exists()


def is_bars(path: pathlib.Path) -> bool:
    return not any(kind in path.name for kind in ("_tick", "_quote", "_trade", "_depth", "_lob"))
