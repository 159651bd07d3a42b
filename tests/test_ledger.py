import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import ledger
from jaxtrade.costs import make_costs
from jaxtrade.orders import Order
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from jaxtrade.tape import Bar
from tests.reference.ledger import simulate

FREE = {"commission_rate": 0.0, "half_spread": 0.0, "borrow_rate": 0.0, "margin_rate": 0.0}
DEAR = {"commission_rate": 1e-3, "half_spread": 5e-4, "borrow_rate": 0.3, "margin_rate": 0.2}
DAY = 1 / 252


def bar_of(opening, closing):
    """One bar f32[A, 4] over the last close; high and low enclose the two."""
    prices = np.stack(np.broadcast_arrays(np.atleast_1d(opening), np.atleast_1d(closing)))
    return np.float32([prices[0], prices.max(0), prices.min(0), prices[1]]).T


def account_of(weights, **fields):
    weights = jnp.asarray(weights, jnp.float32)
    return ledger.open_account(len(weights)).replace(weights=weights, **fields)


def next_open(account, order, bar, years, costs, new_day=0.0):
    names = ("open", "high", "low", "close")
    prices = {name: bar[:, i] for i, name in enumerate(names)}
    row = Bar(**prices, years=years, new_day=jnp.float32(new_day))
    return ledger.step(account, Order(quantity=order), row, make_rules(costs=costs))


@jax.jit
def step(account, order, bar, years, costs, new_day=0.0):
    order, bar, years = (jnp.asarray(x, jnp.float32) for x in (order, bar, years))
    return next_open(account, order, bar, years, costs, new_day)


@jax.jit
def walk(targets, bars, years, costs):
    """Accounts and moves of trading towards targets f32[T, A]; NaN = leave it."""

    def one(account, row):
        target, bar, elapsed = row
        order = jnp.where(jnp.isnan(target), 0.0, target - account.weights)
        account, move = next_open(account, order, bar, elapsed, costs)
        return account, (account, move)

    return jax.lax.scan(one, ledger.open_account(targets.shape[1]), (targets, bars, years))[1]


def random_walk(num_bars, num_assets, *, seed=0, deviation=0.01, exposure=1.5):
    """Targets, bars and years; a third of the targets leaves the position, a tenth closes it."""
    generator = np.random.default_rng(seed)
    shape = (num_bars, num_assets)
    gap = np.exp(0.4 * deviation * generator.standard_normal(shape))
    inside = np.exp(deviation * generator.standard_normal(shape))
    bars = np.stack([gap, gap, gap, gap * inside], axis=-1) - 1
    targets = generator.uniform(-exposure, exposure, shape) / num_assets
    targets[generator.random(shape) < 1 / 3] = np.nan
    targets[generator.random(shape) < 1 / 10] = 0.0
    years = DAY * generator.integers(1, 5, num_bars)
    return np.float32(targets), np.float32(bars), np.float32(years)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


# By hand


def test_adding_to_a_long_position_by_hand():
    # Price 100, equity 1000: 5 units, cash 500. Order: half the equity, 5 units more.
    # Open 110: equity 500 + 550 = 1050. Buy 5 for 550, cost 1 % of it: cash 500 - 550 - 5.5.
    # Equity after 1044.5, 10 units worth 1100, borrowed 55.5: interest 5 % * 0.1 years = 0.2775.
    # Close 121: 1210 - 55.5 - 0.2775 = 1154.2225.
    costs = make_costs(commission_rate=0.004, half_spread=0.006, borrow_rate=0.5, margin_rate=0.05)
    account, move = step(account_of([0.5]), [0.5], bar_of(0.10, 0.21), 0.1, costs)
    assert move.gap == pytest.approx(0.05, rel=1e-6)
    assert move.traded[0] == pytest.approx(550 / 1000, rel=1e-6)
    assert move.cost == pytest.approx(5.5 / 1000, rel=1e-6)
    assert move.weights_before[0] == pytest.approx(550 / 1050, rel=1e-6)
    assert move.weights_after[0] == pytest.approx(1100 / 1044.5, rel=1e-6)
    assert move.carry == pytest.approx(0.2775 / 1000, rel=1e-4)
    assert move.gain == pytest.approx(0.1542225, rel=1e-5)
    assert account.weights[0] == pytest.approx(1210 / 1154.2225, rel=1e-6)
    assert account.last_return == pytest.approx(0.1542225, rel=1e-5)
    assert account.log_equity == pytest.approx(np.log(1.1542225), rel=1e-5)


def test_flipping_two_assets_by_hand():
    # Equity 1000. X at 10: 30 units (0.3). Y at 100: 2 units short (-0.2). Cash 1000 - 300 + 200.
    # Orders: X -0.6 (60 units), Y +0.2 (2 units). Opens 9 and 105, no cost:
    # equity 900 + 270 - 210 = 960; cash 900 + 540 - 210 = 1230; X 30 short, Y none.
    # Short value 270, 10 % a year over half a year: 13.5. Closes 8 and 90: 1230 - 240 - 13.5.
    costs = make_costs(commission_rate=0, half_spread=0, borrow_rate=0.1, margin_rate=0.9)
    bar = bar_of([-0.1, 0.05], [-0.2, -0.1])
    account, move = step(account_of([0.3, -0.2]), [-0.6, 0.2], bar, 0.5, costs)
    assert move.gap == pytest.approx(-0.04, rel=1e-6)
    np.testing.assert_allclose(move.traded, [-540 / 1000, 210 / 1000], rtol=1e-6)
    np.testing.assert_allclose(move.weights_after, [-270 / 960, 0], rtol=1e-6)
    assert move.carry == pytest.approx(13.5 / 1000, rel=1e-5)
    assert account.last_return == pytest.approx(-0.0235, rel=1e-5)
    np.testing.assert_allclose(account.weights, [-240 / 976.5, 0], rtol=1e-6)
    assert account.weights[1] == 0


def test_open_return_and_bars_held_by_hand():
    # Every bar: open +10 % over the last close, close +5 % over the open (1.155). No cost.
    # What a position makes is a fraction of the equity at the last close.
    bar, rates = bar_of(0.10, 0.155), make_costs(**FREE)
    expected = [
        # order: (open_return, bars_held) at the close; w is the weight before the step
        (0.4, 0.4 * 1.1 * 0.05, 1),  # open: units bought at the close's size are worth 10 % more
        (0.0, None, 2),  # hold
        (0.2, None, 3),  # add
        (-0.3, None, 4),  # reduce
    ]
    account, earned = account_of([0.0]), 0.0
    for order, fresh, held in expected:
        before = float(account.weights[0])
        account, _ = step(account, [order], bar, DAY, rates)
        earned += before * 0.1 + (before + order) * 0.055
        assert fresh is None or earned == pytest.approx(fresh)
        assert account.open_return[0] == pytest.approx(earned, rel=1e-5)
        assert account.bars_held[0] == held
    before = float(account.weights[0])
    account, _ = step(account, [-2 * before], bar, DAY, rates)  # flip: only the new side's
    assert account.open_return[0] == pytest.approx(-before * 0.055, rel=1e-5)
    assert account.bars_held[0] == 1
    account, _ = step(account, -account.weights, bar, DAY, rates)  # close
    assert (account.weights[0], account.open_return[0], account.bars_held[0]) == (0, 0, 0)


def test_day_return_drawdown_and_peak_by_hand():
    # Fully invested, closes +10 %, -20 %, +5 %: equity 1.1, 0.88, 0.924. A day starts at 1.1.
    account = account_of([1.0])
    seen = []
    for closing, is_new_day in [(0.1, False), (-0.2, True), (0.05, False)]:
        bar = bar_of(0.0, closing)
        account, _ = step(account, [0.0], bar, DAY, make_costs(**FREE), float(is_new_day))
        seen.append([ledger.drawdown(account), ledger.day_return(account), account.peak_log_equity])
    peak = np.log(1.1)
    expected = [[0.0, 0.1, peak], [0.2, -0.2, peak], [0.16, 0.924 / 1.1 - 1, peak]]
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-7)


def test_interest_compounds_and_follows_elapsed_years():
    # Units worth 2 at a price that stands still, 1 borrowed at 30 %: the debt compounds.
    costs, still = make_costs(**{**FREE, "margin_rate": 0.3}), bar_of(0.0, 0.0)
    account = account_of([2.0])
    for _ in range(50):
        account, _ = step(account, [0.0], still, DAY, costs)
    assert np.exp(account.log_equity) == pytest.approx(2 - (1 + 0.3 * DAY) ** 50, rel=1e-6)
    one, three = (step(account_of([2.0]), [0.0], still, n * DAY, costs)[1] for n in (1, 3))
    assert three.carry == pytest.approx(3 * float(one.carry), rel=1e-6)
    assert one.carry == pytest.approx(0.3 * DAY, rel=1e-6)
    assert step(account_of([0.9]), [0.0], still, 1.0, costs)[1].carry == 0
    assert step(account_of([-0.9]), [0.0], still, 1.0, costs)[1].carry == 0


# Against books kept in float64


@pytest.mark.parametrize("num_assets", [1, 3])
@pytest.mark.parametrize("rates", [FREE, DEAR], ids=["free", "dear"])
def test_random_walks_equal_the_books(num_assets, rates):
    targets, bars, years = random_walk(2000, num_assets, seed=num_assets)
    costs = make_costs(**rates)
    accounts, moves = walk(targets, bars, years, costs)
    exact = {name: float(getattr(costs, name)) for name in rates}
    books = simulate(*(x.astype(np.float64) for x in (targets, bars, years)), exact)
    log_equity = np.asarray(accounts.log_equity, np.float64)
    np.testing.assert_allclose(np.exp(log_equity), books.equity, rtol=1e-5)
    np.testing.assert_allclose(accounts.weights, books.weights, rtol=0, atol=5e-6)
    before = np.concatenate([[0.0], log_equity[:-1]])
    fees = np.exp(before) * moves.cost
    np.testing.assert_allclose(fees, books.fees, rtol=1e-5, atol=1e-9)
    assert finite(accounts)


def test_compensation_holds_over_twenty_thousand_steps():
    targets, bars, years = random_walk(20_000, 1, seed=5, deviation=0.004)
    bars[..., 3] += 2e-4  # a drift, so that the sum grows large against its increments
    targets = np.abs(targets)
    accounts, _ = walk(targets, bars, years, make_costs(**FREE))
    books = simulate(*(x.astype(np.float64) for x in (targets, bars, years)), FREE)
    wrong = np.asarray(accounts.log_equity, np.float64) - np.log(books.equity)
    assert np.abs(wrong).max() < 2e-6
    assert np.log(books.equity[-1]) > 1


# Properties


def test_buying_and_holding_earns_the_price():
    _, bars, years = random_walk(300, 1)
    targets = np.full((300, 1), np.nan, np.float32)
    targets[0] = 1.0 / (1.0 + bars[0, :, 0])  # all of the equity at the first open
    accounts, _ = walk(targets, bars, years, make_costs(**FREE))
    close = np.cumprod(1 + bars[:, 0, 3].astype(np.float64))
    expected = close / (1 + bars[0, 0, 0].astype(np.float64))
    np.testing.assert_allclose(np.exp(accounts.log_equity), expected, rtol=2e-6)


def test_equity_without_costs_is_the_product_of_portfolio_returns():
    targets, bars, years = random_walk(500, 3)
    accounts, moves = walk(targets, bars, years, make_costs(**FREE))
    bars = bars.astype(np.float64)
    old = np.concatenate([np.zeros((1, 3)), np.asarray(accounts.weights)[:-1]])
    gap = 1 + (old * bars[..., 0]).sum(-1)
    inside = 1 + (moves.weights_after * ((1 + bars[..., 3]) / (1 + bars[..., 0]) - 1)).sum(-1)
    np.testing.assert_allclose(np.exp(accounts.log_equity), np.cumprod(gap * inside), rtol=5e-6)


def test_costs_never_help():
    targets, bars, years = zip(*(random_walk(200, 2, seed=seed) for seed in range(20)), strict=True)
    many = jax.vmap(walk, in_axes=(0, 0, 0, None))
    rows = [np.stack(x) for x in (targets, bars, years)]
    free, _ = many(*rows, make_costs(**FREE))
    for name in FREE:
        dear, _ = many(*rows, make_costs(**{**FREE, name: 0.01}))
        assert np.all(dear.log_equity <= free.log_equity + 1e-6)
        assert dear.log_equity[:, -1].mean() < free.log_equity[:, -1].mean() - 1e-5


def test_permuting_assets_permutes_results():
    targets, bars, years = random_walk(300, 3)
    order = [2, 0, 1]
    accounts, moves = walk(targets, bars, years, make_costs(**DEAR))
    other, other_moves = walk(targets[:, order], bars[:, order], years, make_costs(**DEAR))
    np.testing.assert_allclose(other.log_equity, accounts.log_equity, atol=2e-6)
    for name in ("weights", "open_return", "bars_held"):
        np.testing.assert_allclose(
            getattr(other, name), getattr(accounts, name)[:, order], atol=2e-6, rtol=1e-4
        )
    np.testing.assert_allclose(other_moves.traded, moves.traded[:, order], atol=2e-6)


def test_an_order_of_nothing_trades_nothing():
    account, move = step(
        account_of([0.7, -0.4]), [0.0, 0.0], bar_of([0.02, 0.1], [0.0, 0.3]), DAY, make_costs()
    )
    np.testing.assert_array_equal(move.traded, 0)
    assert move.cost == 0
    np.testing.assert_allclose(move.weights_after, move.weights_before, rtol=1e-6)
    np.testing.assert_allclose(
        account.weights * (1 + account.last_return), [0.7, -0.4 * 1.3], rtol=1e-6
    )


def test_a_closed_position_is_exactly_flat():
    _, bars, _ = random_walk(500, 3, deviation=0.1)
    weights = np.random.default_rng(3).uniform(-1, 1, (500, 3)).astype(np.float32)
    accounts = jax.vmap(
        lambda weights: account_of(weights, bars_held=jnp.full(3, 7.0), open_return=jnp.ones(3))
    )(weights)
    batched = jax.vmap(step, in_axes=(0, 0, 0, None, None))
    closed, _ = batched(accounts, -weights, bars, DAY, make_costs(**DEAR))
    for leaf in (closed.weights, closed.bars_held, closed.open_return):
        np.testing.assert_array_equal(leaf, 0)


def test_compiled_equals_plain_without_implicit_promotion():
    targets, bars, years = random_walk(1, 3)
    account = account_of([0.2, -0.3, 0.4])
    arguments = (account, jnp.nan_to_num(targets[0]), jnp.asarray(bars[0]), jnp.asarray(years[0]))
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        plain = next_open(*arguments, make_costs())
    compiled = step(*arguments, make_costs())
    for mine, other in zip(jax.tree.leaves(plain), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-7)


# Ruin

RUINS = {
    # name: weights, order, opening, closing, rates
    "gap against a short": ([-1.0], [0.0], 1.5, 1.5, {}),
    "gap that takes exactly all": ([-1.0], [0.0], 1.0, 1.0, {}),
    "gap that leaves a trace, then a rally": ([2.0], [0.0], -0.49975, 2.0, {}),
    "long with borrowed money": ([3.0], [0.0], 0.0, -0.5, {}),
    "costs": ([0.0], [5.0], 0.0, 0.0, {"half_spread": 0.3}),
    "costs that leave a trace, then a rally": ([0.0], [5.0], 0.0, 1.0, {"half_spread": 0.1999}),
    "interest": ([-0.9], [0.0], 0.0, 0.0, {"borrow_rate": 0.99}),
    "a bar that is no number": ([1.0], [0.0], np.nan, np.nan, {}),
}


@pytest.mark.parametrize("case", RUINS)
def test_ruin_is_flagged_and_finite_beside_accounts_that_live(case):
    weights, order, opening, closing, rates = RUINS[case]
    costs, years = make_costs(**{**FREE, **rates}), 2.0
    start = {"log_equity": jnp.float32(0.3), "bars_held": jnp.ones(1), "open_return": jnp.ones(1)}
    alive, calm = account_of([0.1], **start), bar_of(0.01, 0.02)
    accounts = jax.tree.map(lambda *x: jnp.stack(x), account_of(weights, **start), alive)
    orders, bars = np.array([order, [0.0]]), np.stack([bar_of(opening, closing), calm])
    batched = jax.vmap(step, in_axes=(0, 0, 0, None, None))
    after, moves = batched(accounts, orders, bars, years, costs)
    ruined = jax.tree.map(lambda leaf: leaf[0], after)
    assert ruined.is_ruined
    assert ruined.last_return == np.float32(ledger.MIN_GROWTH - 1)
    assert ruined.log_equity == pytest.approx(0.3 + np.log(ledger.MIN_GROWTH), abs=2e-5)
    assert (ruined.weights[0], ruined.open_return[0], ruined.bars_held[0]) == (0, 0, 0)
    assert finite(after)
    assert finite(moves) == (case != "a bar that is no number")
    lived, _ = step(alive, [0.0], calm, years, costs)
    assert not after.is_ruined[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-6), after, lived)


def test_a_large_loss_that_is_no_ruin():
    account, _ = step(account_of([1.0]), [0.0], bar_of(0.0, -0.998), DAY, make_costs(**FREE))
    assert not account.is_ruined
    assert account.last_return == pytest.approx(-0.998, rel=1e-6)
    after, _ = step(
        account.replace(is_ruined=jnp.bool_(True)), [0.0], bar_of(0, 0), DAY, make_costs(**FREE)
    )  # ruin is not forgotten
    assert after.is_ruined


@pytest.mark.parametrize("case", ["plain", "no order", "flat", *list(RUINS)[:-1]])
def test_gradients_are_finite(case):
    plain = {
        "plain": ([0.5], [0.2], 0.01, 0.02, DEAR),
        "no order": ([0.5], [0.0], 0.0, 0.0, DEAR),
        "flat": ([0.0], [0.0], 0.0, 0.0, DEAR),
    }
    weights, order, opening, closing, rates = {**RUINS, **plain}[case]

    def gained(weights, order, bar, years, costs):
        account, move = next_open(account_of(weights), order, bar, years, costs)
        return account.log_equity + account.weights.sum() + account.open_return.sum() + move.cost

    arguments = (jnp.float32(weights), jnp.float32(order), jnp.asarray(bar_of(opening, closing)))
    slopes = jax.grad(gained, argnums=(0, 1, 2, 3, 4))(
        *arguments, jnp.float32(2.0), make_costs(**{**FREE, **rates})
    )
    assert finite(slopes)
    if case == "plain":
        assert float(slopes[0][0]) != 0


def test_costs_refuse_rates_that_are_none():
    for rate in (-1e-4, 1.0, np.nan):
        with pytest.raises(JaxtradeError, match=r"half_spread is .*: give a number from 0 to"):
            make_costs(half_spread=rate)
