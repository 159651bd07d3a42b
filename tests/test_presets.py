"""The family of Trading: the contract of each preset, played by hand."""

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxtrade
from jaxtrade import envs
from jaxtrade.assemble import combine, with_ask
from jaxtrade.brackets import LIQUIDATION, STOP, TARGET
from jaxtrade.costs import make_costs
from jaxtrade.envs import MAKERS, Exposure, Levels, Weights
from jaxtrade.margin import make_margin
from jaxtrade.market import Market
from jaxtrade.rules import make_rules
from jaxtrade.specs import FeatureSpec, JaxtradeError
from tests import kit
from tests.markets import random_frame
from tests.plays import FREE, KEY

RETURNS = FeatureSpec(names=("log_return",), window=2)
NAMES = [name for name in MAKERS if name not in ("Trading-v0", "GymTrading-v0")]


def market_of(*bars, start="2020-01-06", freq="D", **columns):
    """Bars (open, high, low, close), after two at the first open, up to 12 in all."""
    first, last = bars[0][0], bars[-1][3]
    rows = [(first,) * 4] * 2 + list(bars) + [(last,) * 4] * (10 - len(bars))
    frame = pd.DataFrame(rows, columns=["open", "high", "low", "close"])
    frame["timestamp"] = pd.date_range(start, periods=12, freq=freq, tz="UTC")
    frame["volume"] = 100.0
    for name, values in columns.items():
        frame[name] = [0.0] * 2 + list(values) + [0.0] * (10 - len(values))
    return Market.from_frame(frame)


def make(name, market, **options):
    options = {"first": 1, "episode_steps": None, "features": RETURNS, **options}
    return jaxtrade.make(name, market=market, **options)


@functools.partial(jax.jit, static_argnums=0)
def _play(env, params, actions):
    def step(state, action):
        _, state, reward, terminated, _, info = env.step(KEY, state, action, params)
        return state, {"reward": reward, "terminated": terminated, "info": info}

    return jax.lax.scan(step, env.reset(KEY, params)[1], actions)[1]


def play(env, params, *actions):
    """What the steps give; their equity over the start, and their moves."""
    steps = jax.tree.map(np.asarray, _play(env, params, jnp.asarray(actions)))
    account = steps["info"]["final_state"].account
    return steps, np.exp(account.log_equity.astype(float)), steps["info"]["move"]


def shares(account, params):
    return np.asarray(account.lots)[:, 0] * float(params.rules.lot_size)


# Stock

SHORT, FLAT, LONG = 0, 1, 2


def test_a_stock_is_bought_in_whole_shares_by_the_ticket():
    # 100,000 at 301: 332 shares. Per share 0.005 = 1.66; spread and slippage 2e-4 of 99,932.
    # Sold at 298 after a day: 1.66 again and 2e-4 of 98,936.
    env, params = make("StockTrading-v0", market_of((301, 301, 297, 298), (298, 298, 298, 298)))
    steps, equity, move = play(env, params, LONG, FLAT)
    account = steps["info"]["final_state"].account
    np.testing.assert_array_equal(shares(account, params), [332, 0])
    bought, sold = 332 * 301, 332 * 298
    cash = 100_000 - bought - 1.66 - 2e-4 * bought
    assert equity[0] * 1e5 == pytest.approx(cash + sold, abs=0.1)
    assert equity[1] * 1e5 == pytest.approx(cash + sold - 1.66 - 2e-4 * sold, abs=0.2)
    assert move.cost[0] == pytest.approx((1.66 + 2e-4 * bought) / 1e5, rel=1e-5)
    fall = 1 - equity[0]
    assert steps["reward"][0] == pytest.approx(-1.1 * fall, rel=1e-3)


def test_a_stock_s_least_ticket_dividend_and_borrowing():
    # Ten shares cost 1.00, not 0.05; held, they earn 2.00 each; short ones pay 3 % a year.
    market = market_of((100,) * 4, (100,) * 4, (100,) * 4, dividend=(0, 2.0, 0))
    small = {"levels": (-0.0095, 0.0, 0.0105), "no_trade_band": 0.0}
    env, params = make("StockTrading-v0", market, **small)
    steps, equity, move = play(env, params, LONG, LONG, SHORT)
    assert shares(steps["info"]["final_state"].account, params).tolist() == [10, 10, -9]
    np.testing.assert_allclose(move.cost[0] * 1e5, 1 + 0.2, rtol=1e-4)
    assert (equity[1] - equity[0]) * 1e5 == pytest.approx(20, abs=0.1)
    short, year = 900, float(market.clock[4, 2])
    assert move.carry[2] * 1e5 == pytest.approx(0.03 * short * year, rel=0.02)


# Leveraged fund


def test_a_leveraged_fund_decays_in_a_market_that_goes_nowhere():
    # Up 10 %, down to where it was: the fund makes 1.3 * (1 - 3 / 11) of it.
    market = market_of(*[(100, 110, 100, 110), (110, 110, 100, 100)] * 4)
    free = {"costs": make_costs(**FREE), "no_trade_band": 0.0, "rewards": {"log_return": 1.0}}
    hold = jnp.ones((8, 1))
    results = {}
    for leverage in (1.0, 3.0, -1.0):
        options = {"leverage": leverage, "yearly_fee": 0.0, **free}
        env, params = make("LeveragedETF-v0", market, **options)
        _, results[leverage], _ = play(env, params, *hold)
    assert results[1.0][-1] == pytest.approx(1, abs=1e-5)
    assert results[3.0][-1] == pytest.approx((1.3 * (1 - 3 / 11)) ** 4, rel=1e-4)
    assert results[-1.0][-1] == pytest.approx((0.9 * (1 + 1 / 11)) ** 4, rel=1e-4)


def test_a_leveraged_fund_s_costs_and_reward():
    env, params = make("LeveragedETF-v0", market_of((100, 120, 100, 120), (120, 120, 120, 120)))
    assert env.actions == Exposure(-1.0, 1.0)
    steps, equity, move = play(env, params, [0.5], [0.5])
    assert move.cost[0] == pytest.approx(3e-4 * 0.5, rel=1e-4)
    years = float(np.asarray(params.tape.rows)[2, 0, list(params.tape.names).index("years")])
    assert move.carry[0] == pytest.approx(-0.02 * (0.5 - 1.5e-4) * years, rel=1e-3)
    simple = equity[0] - 1
    expected = np.log(equity[0]) - 2.0 * simple**2
    assert steps["reward"][0] == pytest.approx(expected, rel=1e-4)
    assert set(steps["info"]["terms"]) == {"log_return", "volatility"}


# Forex


def test_a_pair_is_traded_in_micro_lots_and_stopped_at_fifty_pips():
    # 10,000 at 1.1, five times: 45 lots of 1,000. Half a pip of spread paid; 50 pips lost.
    market = market_of((1.1, 1.1, 1.094, 1.1), (1.1,) * 4, freq="h")
    env, params = make("Forex-v0", market, pip=1e-4)
    steps, equity, move = play(env, params, LONG)
    np.testing.assert_allclose(move.traded[0, 0], 45_000 * 1.1 / 10_000, rtol=1e-5)
    np.testing.assert_array_equal(move.exit_code[0], [STOP])
    # The level is met by the bid, half a pip below the middle; entry and exit are 50 pips apart.
    assert (1 - equity[0]) * 1e4 == pytest.approx(45_000 * (50 + 0.5) * 1e-4, abs=1.0)
    assert shares(steps["info"]["final_state"].account, params).tolist() == [0]


def test_a_pair_takes_profit_at_a_hundred_pips():
    env, params = make("Forex-v0", market_of((1.1, 1.115, 1.1, 1.1), freq="h"))
    _, equity, move = play(env, params, LONG)
    np.testing.assert_array_equal(move.exit_code[0], [TARGET])
    assert (equity[0] - 1) * 1e4 == pytest.approx(45_000 * (100 - 0.5) * 1e-4, abs=1.0)


def test_a_pair_pays_three_nights_of_swap_on_wednesday():
    # Hourly bars from Wednesday 19:00: the one that ends at 22:00 is charged.
    market = market_of((1.1,) * 4, (1.1,) * 4, start="2020-01-08 18:00", freq="h")
    env, params = make("Forex-v0", market)
    _, _, move = play(env, params, SHORT, SHORT, SHORT)
    expected = [0, 45_000 * 0.5e-4 * 3 / 1e4, 0]
    np.testing.assert_allclose(move.carry, expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(("price", "pip"), [(1.1, 1e-4), (110.0, 1e-2)])
def test_a_pip_follows_the_price(price, pip):
    _, params = make("Forex-v0", market_of((price,) * 4))
    assert float(params.rules.brackets.stop_loss) == pytest.approx(50 * pip, rel=1e-5)
    assert float(params.rules.tick_size) == pytest.approx(pip / 10, rel=1e-5)
    assert float(params.rules.costs.swap_long) == pytest.approx(-pip / 2, rel=1e-5)
    with pytest.raises(JaxtradeError, match="pip is -1: give a size above 0"):
        make("Forex-v0", market_of((price,) * 4), pip=-1)


def test_a_pair_s_leverage_is_bounded_by_margin():
    env, params = make("Forex-v0", market_of((1.1,) * 4), levels=(0.0, 29.0, 50.0))
    _, _, move = play(env, params, 1)
    assert move.weights_after[0, 0] == pytest.approx(29, rel=0.01)
    _, _, move = play(env, params, 2)  # the review's limit is 30, and cost takes margin
    assert 29 < move.weights_after[0, 0] <= 30.2


@pytest.mark.slow
def test_a_pair_on_real_bid_and_ask(data_folder):
    bid = Market.load(data_folder / "EURUSD_1h.csv.gz")
    ask = Market.load(data_folder / "EURUSD-ASK_1h.csv.gz")
    shared = np.intersect1d(bid.timestamps, ask.timestamps)
    assert len(shared) == bid.num_bars == ask.num_bars
    market = with_ask(bid, ask)
    env, params = jaxtrade.make("Forex-v0", market=market, features=RETURNS, episode_steps=64)
    assert float(params.rules.costs.half_spread) == 0
    names = params.tape.names
    half = np.asarray(params.tape.rows)[:, 0, names.index("half_spread_open")]
    assert 1e-6 < np.median(half) < 2e-4
    walked = kit.roll(env, params, KEY, 200)
    assert np.isfinite(walked["reward"]).all()
    move = walked["info"]["move"]
    rows = walked["info"]["final_state"].index
    traded = np.abs(move.traded[:, 0])
    no_exit = (move.exit_code[:, 0] == 0) & (traded > 0)
    np.testing.assert_allclose(
        move.cost[no_exit], (traded * half[rows])[no_exit], rtol=1e-3, atol=1e-8
    )
    assert no_exit.sum() > 20


# Perpetual


def test_a_perpetual_is_liquidated_inside_a_bar_that_closes_where_it_began():
    market = market_of((100, 101, 60, 100), (100,) * 4)
    env, params = make("Perpetual-v0", market)
    steps, equity, move = play(env, params, 4)
    np.testing.assert_array_equal(move.exit_code[0], [LIQUIDATION])
    # Three times the equity less 6e-4 of it; equity 0.5 % of the position's value at 1 - x:
    # 1 - 3 * 6e-4 - 3 x = 0.015 (1 - x).
    x = (1 - 3 * 6e-4 - 0.015) / (3 - 0.015)
    assert move.exit_price[0, 0] == pytest.approx(-x, rel=1e-4)
    assert steps["terminated"][0]  # the fee and the costs of closing are more than is left
    kinder = make_rules(
        costs=params.rules.costs, margin=make_margin(max_leverage=10.0, maintenance=0.02)
    )
    env, params = make("Perpetual-v0", market, rules=kinder)
    steps, equity, move = play(env, params, 4)
    x = (1 - 3 * 6e-4 - 0.06) / (3 - 0.06)
    assert not steps["terminated"][0]
    expected = 1 - 3 * 6e-4 - 3 * x - 3 * (1 - x) * 6e-4
    assert equity[0] == pytest.approx(expected, rel=1e-3)


def test_a_perpetual_s_longs_pay_funding_to_shorts():
    market = market_of((100,) * 4, (100,) * 4, funding=(0, 1e-3))
    env, params = make("Perpetual-v0", market, no_trade_band=0.0)
    for action, exposure in ((3, 1.0), (0, -3.0)):
        _, _, move = play(env, params, action, action)
        assert move.cost[0] == pytest.approx(6e-4 * abs(exposure), rel=1e-4)
        assert move.carry[0] == 0
        assert move.carry[1] == pytest.approx(1e-3 * exposure, rel=3e-3)


# Portfolio


def test_permuting_a_portfolio_s_assets_permutes_it():
    singles = [
        Market.from_frame(random_frame(60, seed=seed), symbol=name)
        for seed, name in enumerate("ABC")
    ]
    order, back = [2, 0, 1], [2, 0, 1, 3]
    actions = np.random.default_rng(0).random((40, 4)).astype(np.float32)
    options = {"first": 4, "episode_steps": None}
    played = []
    for chosen, acted in ((singles, actions), ([singles[i] for i in order], actions[:, back])):
        env, params = make("Portfolio-v0", combine(chosen), **options)
        played.append(play(env, params, *acted))
    assert env.actions == Weights()
    np.testing.assert_allclose(played[0][1], played[1][1], rtol=1e-5)
    weights = [steps["info"]["final_state"].account.weights for steps, _, _ in played]
    np.testing.assert_allclose(weights[0][:, order], weights[1], atol=1e-5)
    assert np.abs(weights[0]).sum(1).max() < 1.1


# All of them


def preset(name, num_bars=120):
    options = {"features": RETURNS, "episode_steps": 16}
    frames = [random_frame(num_bars, seed=seed, freq="h") for seed in range(3)]
    for frame in frames:
        frame["volume"] += 1
    markets = [Market.from_frame(frame, symbol=f"M{i}") for i, frame in enumerate(frames)]
    market = combine(markets) if name == "Portfolio-v0" else markets[0]
    return jaxtrade.make(name, market=market, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_presets_conform(name):
    env, params = preset(name)
    kit.check_environment(env, params, KEY, steps=24, ignores_key=True)


@pytest.mark.parametrize("name", NAMES)
def test_presets_are_registered_and_named(name):
    env, params = preset(name)
    assert env.name == name
    kind = type(env)
    assert kind is getattr(envs, name.removesuffix("-v0"))
    registered, _ = gymnax.make(name)
    assert type(registered) is kind
    assert name in (kind.__doc__ or "")
    assert params.rewards.weights.shape == (len(env.terms),)
    assert hash(env) == hash(preset(name)[0])


def test_options_replace_what_a_preset_sets():
    costs = make_costs(commission_rate=0.01)
    market = market_of((100,) * 4)
    _, params = make("StockTrading-v0", market, costs=costs)
    assert float(params.rules.costs.commission_rate) == pytest.approx(0.01)
    assert params.rules.lot_size is not None  # the rest of the preset stays
    _, params = make("StockTrading-v0", market, rules=make_rules(costs=costs))
    assert params.rules.lot_size is None
    env, params = make("Perpetual-v0", market, levels=(0, 1), rewards={"turnover": 1.0})
    assert env.actions == Levels((0.0, 1.0))
    assert env.terms == ("turnover",)
    env, _ = make("Forex-v0", market, actions=Exposure(-2.0, 2.0))
    assert env.actions == Exposure(-2.0, 2.0)
    with pytest.raises(JaxtradeError, match="give one of them"):
        make("StockTrading-v0", market, levels=(0, 1), actions=Exposure())
