import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxtrade import features
from jaxtrade.indicators import INDICATORS
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec, JaxtradeError
from jaxtrade.synthetic import (
    PROCESSES,
    EmbeddedPath,
    embedded,
    make_market,
    make_params,
    sample,
    sample_bars,
)
from tests.synthetic_paths import assert_bars_consistent, draw, keys, log_returns

VOLATILITY = 0.005  # the default, as the docstring states it

GOLDEN_BARS = (  # rows 0, 1, 2 and 199 of seed 0
    (4.2626e-04, 1.16909e-03, -2.85187e-03, -8.80192e-04),
    (6.1425e-06, 4.53908e-03, -7.20597e-04, 9.72615e-04),
    (-4.95051e-04, -4.8538e-04, -6.98263e-03, -5.5743e-03),
    (6.45325e-04, 4.781436e-03, 3.74748e-04, 4.07446e-03),
)
GOLDEN_VOLUME = (483.2731, 1145.9580, 933.4905, 1547.3597)


@pytest.fixture(scope="module")
def paths():
    return draw()


# Numbers of a bar


def test_bars_are_consistent(paths):
    assert_bars_consistent(paths.bars, paths.volume)
    assert 0.01 < np.abs(paths.bars).max() < 0.2
    assert paths.trend.dtype == np.int32 and set(np.unique(paths.trend)) == {-1, 0, 1}


def test_bars_are_consistent_at_every_bound_of_the_parameters():
    for side in (0, 1):
        extreme = {name: bounds[side] for name, bounds in embedded._BOUNDS.items()}
        path = draw(**extreme)
        assert_bars_consistent(path.bars, path.volume)
        hits_limit = np.abs(np.log1p(path.bars[..., 3])) > 0.999 * embedded.MAX_MOVE
        assert hits_limit.any() == bool(side)
    still = draw(gap=1.0, drift=0.0, reversion=0.0)  # all of the bar is its gap
    np.testing.assert_allclose(still.bars[..., 3], still.bars[..., 0], atol=1e-7)


def test_one_step_by_hand():
    params = make_params(
        drift=0.5,
        regime_bars=10,
        reversion=0.01,
        volatility=0.02,
        volatility_memory=0.6,
        volatility_spread=0.5,
        tail=0.0,
        gap=0.6,
    )
    carry = (jnp.int32(-1), jnp.float32(0.75), jnp.float32(2.0))
    normal = jnp.array([1.0, 0.5, -2.0, 1.0], jnp.float32)

    def step(chance, side):
        draws = (jnp.array([chance, side], jnp.float32), normal)
        after = embedded._step(params, carry, draws)
        chex.assert_trees_all_close(after, jax.jit(embedded._step)(params, carry, draws))
        return after[0]

    # centre -0.25; level -0.25 + 0.6 * (0.75 + 0.25) + 0.5 * 0.8 * 1 = 0.75, so it stands still
    scale = 0.02 * np.exp(0.75)
    opening = 0.6 * scale * 0.5
    stays = opening + scale * (-0.5 + 0.8 * -2.0) - 0.01 * 2.0
    expected = (-1, 0.75, 2.0 + stays)
    np.testing.assert_allclose(np.asarray(step(0.11, 0.9)), expected, rtol=1e-6)
    none = opening + scale * (0.0 + 0.8 * -2.0) - 0.01 * 2.0
    np.testing.assert_allclose(np.asarray(step(0.09, 0.2)), (0, 0.75, 2.0 + none), rtol=1e-6)
    assert int(step(0.09, 0.7)[0]) == 1
    normal = normal.at[2].set(-1e3)
    np.testing.assert_allclose(step(0.11, 0.9)[2], 2.0 - embedded.MAX_MOVE)


def test_high_and_low_are_those_of_a_brownian_path():
    # Each bar a Brownian path from 0: its expected maximum is sqrt(2 / pi) deviations
    plain = draw(drift=0.0, reversion=0.0, volatility_spread=0.0, tail=0.0, gap=0.0)
    high, low = np.log1p(plain.bars[..., 1]), np.log1p(plain.bars[..., 2])
    np.testing.assert_allclose(high.mean() / VOLATILITY, np.sqrt(2 / np.pi), rtol=0.01)
    np.testing.assert_allclose(-low.mean() / VOLATILITY, np.sqrt(2 / np.pi), rtol=0.01)
    np.testing.assert_array_equal(plain.bars[..., 0], 0.0)


def test_gaps_are_small(paths):
    gaps = np.log1p(paths.bars[..., 0].astype(np.float64)) / paths.volatility
    np.testing.assert_allclose(gaps.std(), 0.1, rtol=0.01)
    assert abs(gaps.mean()) < 0.001


def test_volume_grows_with_move_and_volatility(paths):
    log_volume = np.log(paths.volume)
    size = np.abs(log_returns(paths)) / paths.volatility
    assert np.corrcoef(log_volume.ravel(), size.ravel())[0, 1] > 0.3
    assert np.corrcoef(log_volume.ravel(), np.log(paths.volatility).ravel())[0, 1] > 0.3


# Randomness and transformations


def test_golden_values_of_version_1():
    market = make_market(seed=0, num_bars=200)
    np.testing.assert_allclose(market.bars[[0, 1, 2, 199], 0], GOLDEN_BARS, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(market.volume[[0, 1, 2, 199], 0], GOLDEN_VOLUME, rtol=1e-3)
    assert "Version 1 " in embedded.__doc__


@pytest.mark.slow
def test_as_one_of_the_processes_it_has_its_own_bits():
    path = jax.device_get(sample(keys(1)[0], 400, make_params()))
    same = sample_bars(PROCESSES["embedded"], keys(1)[0], 400, make_params())
    np.testing.assert_array_equal(same.bars[:, 0], path.bars)
    np.testing.assert_array_equal(same.volume[:, 0], path.volume)
    np.testing.assert_array_equal(same.volatility[:, 0], path.volatility)
    # A drift of 0.12 deviations in a trend, less a thousandth of the distance of the log price
    distance = np.concatenate([[0.0], log_returns(path).cumsum()[:-1]])
    drift = 0.12 * np.asarray(path.trend) * path.volatility - 1e-3 * distance
    np.testing.assert_allclose(same.drift[:, 0], drift, atol=1e-7)


def test_same_seed_same_bits_other_seed_other_numbers():
    first, again, other = (make_market(seed=seed, num_bars=400) for seed in (3, 3, 4))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert first.bars.tobytes() == again.bars.tobytes()
    assert (first.bars[:, 0, 3] != other.bars[:, 0, 3]).mean() > 0.99


def test_a_longer_path_begins_with_the_shorter_one():
    short, long = (make_market(seed=0, num_bars=num_bars) for num_bars in (200, 400))
    np.testing.assert_allclose(long.bars[:200], short.bars, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(long.volume[:200], short.volume, rtol=1e-4)


def test_vmap_is_loop_over_keys_and_params():
    drifts = (0.0, 0.3)
    many = jax.tree.map(lambda *leaves: np.stack(leaves), *(make_params(drift=d) for d in drifts))
    batch = jax.device_get(jax.vmap(sample, in_axes=(0, None, 0))(keys(2), 200, many))
    for row, drift in enumerate(drifts):
        one = sample(keys(2)[row], 200, make_params(drift=drift))
        mapped = jax.tree.map(lambda leaf, row=row: leaf[row], batch)
        chex.assert_trees_all_close(mapped, one, rtol=1e-4, atol=1e-8)


def test_parameters_do_not_retrace():
    traced = jax.jit(chex.assert_max_traces(lambda key, params: sample(key, 120, params), n=1))
    first = traced(keys(2)[0], make_params())
    second = traced(keys(2)[1], make_params(drift=0.1, volatility=0.01))
    assert isinstance(first, EmbeddedPath) and first.bars.shape == second.bars.shape == (120, 4)


def test_strict_promotion_and_single_use_of_keys():
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_key_reuse(True),
        jax.enable_x64(True),
    ):
        path = sample(jax.random.key(0, impl="threefry2x32"), 130, make_params())
    kinds = {leaf.dtype for leaf in jax.tree.leaves(path)}
    assert kinds == {np.dtype(np.float32), np.dtype(np.int32)}


def test_import_touches_no_device():
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_platform"}
    code = "import jaxtrade.synthetic"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    touching = "import jaxtrade.synthetic as s; s.make_params()"
    run = subprocess.run(
        [sys.executable, "-c", touching], check=False, env=environment, capture_output=True
    )
    assert run.returncode != 0  # so the first command would have failed as well


# The market


def test_market_holds_the_path_and_its_clock():
    market = make_market(seed=5, num_bars=400)
    path = sample(keys(6)[5], 400, make_params())
    np.testing.assert_array_equal(market.bars[:, 0], path.bars)
    np.testing.assert_array_equal(market.volume[:, 0], path.volume)
    assert market.bars.shape == (400, 1, 4) and market.context.shape == (400, 0)
    assert (market.spec.symbols, market.spec.bar_seconds) == (("SYNTH",), 3600)
    assert market.spec.source == "synthetic (seed 5)"
    assert market.spec.bars_per_year == 8766.0
    assert (np.diff(market.timestamps).astype(int) == 3600).all()
    assert str(market.timestamps[0]) == "2000-01-03T00:00:00"
    np.testing.assert_allclose(market.clock[25], (1 / 24, 25 / 168, 1 / 8766), rtol=1e-6)
    assert isinstance(market.bars, np.ndarray) and market.bars.flags.writeable


def test_market_survives_the_checks_of_a_file():
    market = make_market(seed=1, num_bars=400)
    names = ("open", "high", "low", "close")
    frame = pd.DataFrame({name: market._prices(field)[:, 0] for field, name in enumerate(names)})
    frame["timestamp"], frame["volume"] = market.timestamps, market.volume[:, 0]
    loaded = Market.from_frame(frame, symbol="SYNTH")
    np.testing.assert_allclose(loaded.bars[1:], market.bars[1:], atol=1e-9)
    np.testing.assert_array_equal(loaded.clock, market.clock)
    assert market.close_prices()[-1, 0] == pytest.approx(frame["close"].iloc[-1])
    assert loaded.spec.bars_per_year == market.spec.bars_per_year


def test_every_feature_computes():
    market = make_market(num_bars=400)
    spec = FeatureSpec(names=tuple(INDICATORS))
    table = np.asarray(features.raw_table(spec, market))
    assert table.shape == (400, 1, len(features.columns(spec)))
    assert np.isfinite(table).all()
    assert (table[50:].std(axis=0) > 0).sum() == table.shape[2] - 1  # all but volume_known vary


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_market(num_bars=99), "num_bars is 99: give a whole number from 100 to"),
        (lambda: make_market(num_bars=10**8), "num_bars is 100000000: give"),
        (lambda: make_market(num_bars=5e4), r"num_bars is 50000.0: give"),
        (lambda: make_market(seed=-1), "seed is -1: give a whole number from 0 to 4294967295"),
        (lambda: make_market(seed="0"), "seed is '0': give"),
        (lambda: make_params(volatility=0.0), "volatility is 0.0: give a number from 1e-05 to 0.1"),
        (lambda: make_params(drift=float("nan")), "drift is nan: give"),
        (lambda: make_params(regime_bars=0.5), "regime_bars is 0.5: give"),
        (lambda: make_params(volatility_memory=1.0), "volatility_memory is 1.0: give"),
        (lambda: make_params(gap="wide"), "gap is 'wide': give"),
    ],
)
def test_bad_values_are_one_line_errors(make, message):
    with pytest.raises(JaxtradeError, match=f"^synthetic market: {message}") as caught:
        make()
    assert "\n" not in str(caught.value)


def test_parameters_that_are_not_finite_are_an_error():
    params = make_params().replace(volatility=jnp.float32(np.nan))
    with pytest.raises(JaxtradeError, match="not finite: build them with make_params"):
        make_market(num_bars=100, params=params)
