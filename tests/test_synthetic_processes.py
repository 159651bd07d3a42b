"""What holds for every synthetic process: consistent bars, randomness, mapping, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.key_reuse._core import check_key_reuse

from jaxtrade.lengths import LEAST_ROWS
from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError
from jaxtrade.synthetic import (
    PROCESSES,
    Path,
    find_process,
    make_bar_params,
    make_garch,
    make_gbm,
    make_gjr,
    make_heston,
    make_market,
    make_merton,
    make_pair,
    make_regimes,
    pool,
    sample_bars,
)
from jaxtrade.synthetic.diffusions import feller_ratio
from tests.synthetic_paths import assert_bars_consistent, keys

KINDS = sorted(PROCESSES)
NUM_BARS, SHORT = LEAST_ROWS, 150

GOLDEN = {  # close of bars 0, 1 and 399, and volume of bar 399, first asset, seed 0
    "embedded": (-8.80192e-04, 9.72615e-04, -1.40767e-03, 454.191),
    "garch": (-1.98391e-02, 7.48685e-03, -4.90649e-05, 967.618),
    "gbm": (-2.58227e-03, -4.25025e-04, -1.33585e-03, 1870.77),
    "gjr": (-1.61000e-02, 7.24204e-03, -4.79007e-05, 944.651),
    "heston": (-1.05972e-02, -5.26179e-03, 7.83249e-03, 2945.76),
    "merton": (-2.02846e-03, -3.02078e-04, -1.03089e-03, 1421),
    "pair": (-6.54573e-03, -4.43657e-03, 7.54067e-05, 901.608),
    "regimes": (1.24884e-03, 2.44267e-04, -2.89318e-03, 2688.5),
}

WILD = {  # parameters as far out as they are taken
    "gbm": [{"volatility": 0.5, "drift": 0.1}, {"volatility": 1e-6, "drift": -0.1}],
    "garch": [
        {"volatility": 0.5, "alpha": 0.999, "beta": 0.0, "degrees": 2.05},
        {"volatility": 1e-6, "alpha": 0.0, "beta": 0.999, "degrees": 1e6},
    ],
    "gjr": [{"volatility": 0.5, "alpha": 0.0, "gamma": 1.0, "beta": 0.49, "degrees": 2.05}],
    "heston": [
        {"volatility": 0.5, "reversion": 1.0, "variance_volatility": 1.0, "correlation": 1.0},
        {"volatility": 1e-6, "reversion": 1e-5, "variance_volatility": 1e-9, "correlation": -1.0},
    ],
    "merton": [
        {"volatility": 0.5, "intensity": 1.0, "jump_mean": -0.5, "jump_deviation": 0.5},
        {"volatility": 1e-6, "intensity": 0.0, "jump_mean": 0.5, "jump_deviation": 0.0},
    ],
    "pair": [
        {"volatility": 0.5, "hedge_ratio": -10.0, "half_life": 0.1, "spread_volatility": 1.0},
        {"volatility": 1e-6, "hedge_ratio": 10.0, "half_life": 1e6, "spread_volatility": 1e-6},
    ],
    "regimes": [
        {"drift": (0.1, -0.1), "volatility": (1e-6, 0.5), "transition": ((0.0, 1.0), (1.0, 0.0))},
        {"drift": (0.0,), "volatility": (0.01,), "transition": ((1.0,),)},
    ],
}


@functools.cache
def path_of(kind):
    """The path of key 0 under the process's own parameters."""
    process = PROCESSES[kind]
    return jax.device_get(sample_bars(process, keys(1)[0], NUM_BARS, process.make_params()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bars_are_consistent(kind):
    path = path_of(kind)
    num_assets = len(PROCESSES[kind].symbols)
    assert num_assets == (2 if kind == "pair" else 1)
    assert path.bars.shape == (NUM_BARS, num_assets, 4)
    for leaf in (path.volume, path.drift, path.volatility):
        assert leaf.shape == (NUM_BARS, num_assets) and leaf.dtype == np.float32
    assert_bars_consistent(path.bars, path.volume)
    assert (path.volatility > 0).all() and np.isfinite(path.drift).all()
    assert 0.002 < path.bars[..., 3].std() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(WILD))
def test_bars_are_consistent_whatever_the_parameters(kind):
    process = PROCESSES[kind]
    bars = (
        make_bar_params(gap=0.0, volume=1e12, volume_volatility=5.0, volume_move=5.0),
        make_bar_params(gap=1.0, volume=1e-3, volume_volatility=-5.0, volume_noise=5.0),
    )
    for number, changes in enumerate(WILD[kind]):
        params = process.make_params(**changes, bars=bars[number % 2])
        path = jax.device_get(sample_bars(process, keys(1)[0], NUM_BARS, params))
        assert_bars_consistent(path.bars, path.volume)
    if kind != "gjr":  # the second ones have all of their time in the gap
        np.testing.assert_array_equal(path.bars[..., 1], path.bars[..., [0, 3]].max(axis=-1))


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in ("gbm", "garch", "regimes") else pytest.param(kind, marks=pytest.mark.slow)
        for kind in KINDS
    ],
)
def test_golden_values(kind):
    path = path_of(kind)
    close, volume = path.bars[[0, 1, 399], 0, 3], path.volume[399, 0]
    np.testing.assert_allclose([*close, volume], GOLDEN[kind], rtol=1e-3, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gjr"])  # drawn as garch is
def test_pool_is_a_loop_over_keys_and_parameters_and_a_longer_path_begins_with_the_shorter(kind):
    process = PROCESSES[kind]
    params = process.make_params()
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.9 * leaf]), params)
    if kind == "regimes":
        many = many.replace(transition=jnp.stack([params.transition] * 2))

    @jax.jit
    def draw(key, params):
        traces.append(key)
        return pool(process, key, 2, SHORT, params, per_path=True)

    traces = []
    rows = jax.device_get(draw(keys(1)[0], many))
    draw(keys(2)[1], jax.tree.map(lambda leaf: 0.99 * leaf, many))
    assert len(traces) == 1  # other values, the same program
    assert isinstance(rows, Path) and rows.bars.shape[0] == 2 * SHORT
    for row, key in enumerate(jax.random.split(keys(1)[0], 2)):
        chosen = jax.tree.map(lambda leaf, row=row: leaf[row], many)
        one = jax.device_get(sample_bars(process, key, NUM_BARS, chosen))
        for pooled, single in zip(jax.tree.leaves(rows), jax.tree.leaves(one), strict=True):
            part = pooled[row * SHORT : (row + 1) * SHORT]
            np.testing.assert_allclose(part, single[:SHORT], rtol=1e-3, atol=1e-6)


def test_one_set_of_parameters_serves_a_whole_pool():
    process, params = PROCESSES["gbm"], make_gbm()
    rows = jax.device_get(pool(process, keys(1)[0], 3, SHORT, params).bars)
    for row, key in enumerate(jax.random.split(keys(1)[0], 3)):
        one = sample_bars(process, key, NUM_BARS, params).bars
        part = rows[row * SHORT : (row + 1) * SHORT]
        np.testing.assert_allclose(part, one[:SHORT], rtol=1e-3, atol=1e-6)
    assert (rows[:SHORT, :, 1:] != rows[SHORT : 2 * SHORT, :, 1:]).mean() > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_types_and_keys_hold_under_the_strictest_settings(kind):
    process = PROCESSES[kind]
    draw = functools.partial(sample_bars, process, num_bars=SHORT)
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.enable_x64(True),
    ):
        path = jax.eval_shape(draw, key=keys(1)[0], params=process.make_params())
    assert {leaf.dtype for leaf in jax.tree.leaves(path)} == {np.dtype(np.float32)}
    check_key_reuse(lambda key: process.sample(process.make_params(), key, SHORT), keys(1)[0])


# The market


@pytest.mark.parametrize("kind", KINDS)
def test_market_holds_the_path(kind):
    market = make_market(kind=kind, seed=0, num_bars=NUM_BARS)
    np.testing.assert_array_equal(market.bars, path_of(kind).bars)
    np.testing.assert_array_equal(market.volume, path_of(kind).volume)
    assert market.spec.symbols == PROCESSES[kind].symbols
    assert market.spec.base_price == (100.0,) * market.num_assets
    name = "synthetic" if kind == "embedded" else f"synthetic {kind}"
    assert market.spec.source == f"{name} (seed 0)"
    assert isinstance(market, Market) and market.bars.flags.writeable


def test_a_market_takes_parameters_and_a_length_of_bar():
    params = make_gbm(volatility=0.02)
    daily = make_market(kind="gbm", seed=3, num_bars=NUM_BARS, params=params, bar_seconds=86_400)
    hourly = make_market(kind="gbm", seed=3, num_bars=NUM_BARS, params=params)
    np.testing.assert_array_equal(daily.bars, hourly.bars)
    assert (daily.spec.bars_per_year, hourly.spec.bars_per_year) == (365.25, 8766.0)
    assert (np.diff(daily.timestamps).astype(int) == 86_400).all()
    assert 0.015 < daily.bars[:, 0, 3].std() < 0.025


# Refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_gbm(volatility=-0.1), "volatility is -0.1: give a number from 1e-06 to 0.5"),
        (lambda: make_gbm(drift="up"), "drift is 'up': give a number"),
        (lambda: make_bar_params(gap=1.5), "gap is 1.5: give a number from 0 to 1"),
        (lambda: make_bar_params(volume_memory=1.0), "volume_memory is 1.0: give"),
        (lambda: make_garch(alpha=0.1, beta=0.9), "alpha . gamma / 2 . beta is 1: give less than"),
        (lambda: make_garch(degrees=2.0), "degrees is 2.0: give a number from 2.05"),
        (lambda: make_garch(alpha=-0.1), "alpha is -0.1: give"),
        (lambda: make_gjr(alpha=0.05, gamma=-0.1), "alpha . gamma is -0.05: give 0 or more"),
        (lambda: make_gjr(alpha=0.1, gamma=0.2, beta=0.85), "alpha . gamma / 2 . beta is 1.05"),
        (lambda: make_heston(correlation=-1.1), "correlation is -1.1: give"),
        (lambda: make_heston(reversion=0.0), "reversion is 0.0: give"),
        (
            lambda: make_heston(volatility=0.01, reversion=0.05, variance_volatility=0.011),
            r"variance_volatility is 0.011: give at most 0.01 \(a Feller ratio of 0.1\), or",
        ),
        (lambda: make_merton(intensity=1.5), "intensity is 1.5: give a number from 0 to 1"),
        (lambda: make_merton(jump_deviation=-1), "jump_deviation is -1: give"),
        (lambda: make_pair(half_life=0), "half_life is 0: give a number from 0.1"),
        (lambda: make_pair(spread_volatility=float("nan")), "spread_volatility is nan: give"),
        (
            lambda: make_regimes(drift=(0.0, 0.0, 0.0)),
            r"3 drifts, 2 volatilities and transition rows of \[2, 2\]: give as many of each",
        ),
        (lambda: make_regimes(transition=((1.0,), (0.5, 0.5))), "2 drifts, 2 volatilities and"),
        (lambda: make_regimes(drift=(), volatility=(), transition=()), "0 drifts, 0 volatilities"),
        (lambda: make_regimes(volatility=(0.01, -0.01)), "volatility is -0.01: give"),
        (lambda: make_regimes(transition=((0.9, 0.2), (0.5, 0.5))), "transition row 0 adds up to"),
        (lambda: make_regimes(transition=((1.5, -0.5), (0.5, 0.5))), "transition is 1.5: give"),
        (lambda: make_regimes(transition=((1, 0), (0, 1))), "transition has regimes that never"),
        (
            lambda: make_market(kind="gbm", params=make_heston()),
            "params of gbm are HestonParams: give GBMParams, from make_gbm",
        ),
        (lambda: make_market(kind="gbm", bar_seconds=0), "bar_seconds is 0: give a whole number"),
    ],
)
def test_bad_values_are_one_line_errors(make, message):
    with pytest.raises(JaxtradeError, match=f"^synthetic market: {message}") as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_is_an_error_with_the_nearest_name():
    with pytest.raises(JaxtradeError, match="synthetic market 'hestn': did you mean 'heston'"):
        make_market(kind="hestn")
    assert find_process("heston") is PROCESSES["heston"]


def test_the_feller_ratio_tells_whether_the_variance_touches_zero():
    # 2 * 0.05 * 0.01**2 / 0.002**2 = 2.5
    params = make_heston(volatility=0.01, reversion=0.05, variance_volatility=0.002)
    np.testing.assert_allclose(feller_ratio(params), 2.5, rtol=1e-6)
