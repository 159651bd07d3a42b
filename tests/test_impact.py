"""Market impact: by hand, against Almgren and Chriss (2001), and whether it can be gamed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import impact, ledger
from jaxtrade.costs import make_costs
from jaxtrade.impact import MODELS, make_impact
from jaxtrade.orders import Order
from jaxtrade.rules import make_rules
from jaxtrade.specs import JaxtradeError
from tests.plays import FREE
from tests.steps import equity_of, free_rules, once, still, trade_all

SIGMA = 0.02

# By hand: an order of 0.25 where 4 trade in a bar, so that the participation is 1/16


def strike(model, value, capacity=4.0, **coefficients):
    made = make_impact(model, **coefficients)
    arguments = (jnp.float32([value]), jnp.float32([SIGMA]), jnp.float32([capacity]))
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        plain = impact.strike(made, *arguments)
        compiled = jax.jit(impact.strike)(made, *arguments)
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    return [float(part[0]) for part in plain]


@pytest.mark.parametrize("side", [1, -1])
def test_square_root_by_hand(side):
    # I = 0.8 * 2 % * sqrt(1/16) = 0.4 %: cost 2/3 of it, a quarter of it stays in the price.
    found = strike("square_root", side * 0.25, coefficient=0.8, permanent=0.25)
    np.testing.assert_allclose(found, [0.008 / 3, side * 0.001, 0], rtol=1e-5)


@pytest.mark.parametrize("side", [1, -1])
def test_almgren_chriss_by_hand(side):
    # Participation times volatility: 1/16 * 2 % = 0.125 %.
    found = strike("almgren_chriss", side * 0.25, fixed=1e-4, temporary=2.0, permanent=0.8)
    np.testing.assert_allclose(found, [1e-4 + 0.0025, side * 0.001, 0], rtol=1e-5)


@pytest.mark.parametrize("side", [1, -1])
def test_obizhaeva_wang_by_hand(side):
    # Jump (0.4 + 1.2) * 0.125 % = 0.2 %, of which the order pays half on average.
    found = strike("obizhaeva_wang", side * 0.25, permanent=0.4, transient=1.2)
    np.testing.assert_allclose(found, [0.001, side * 0.002, side * 0.0015], rtol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_nothing_traded_moves_nothing(model):
    np.testing.assert_array_equal(strike(model, 0.0), [0, 0, 0])
    assert strike(model, 0.25, capacity=0.0) == [0, 0, 0]  # where nothing is known to have traded


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("value", [-1e6, -300.0, 300.0, 1e6])
def test_no_order_moves_a_price_to_0(model, value):
    _, jump, transient = strike(model, value)
    assert abs(transient) <= abs(jump) <= impact.MOST
    rules = free_rules(impact=make_impact(model))
    account, _ = sell(rules, [-0.1] * 16, average_value=500.0)
    assert (account.weights[:, 0] <= 0).all()
    assert np.isfinite(account.log_equity).all()


def sell(rules, orders, *, volatility=SIGMA, years=0.0, **columns):
    """Accounts and moves of orders f32[T] of one asset in bars that do not move by themselves."""
    bars = still(len(orders), 1, volatility=volatility, years=years, **columns)
    return trade_all(Order(quantity=jnp.asarray(orders, jnp.float32)[:, None]), bars, rules)


# In the step


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_an_order_pays_before_its_own_jump_and_is_marked_after_it(fill):
    # 0.5 of 100,000 at the open 10 % up is 55,000 where 1,100,000 trade: 1/20. Impact 2 % / 20 =
    # 0.1 %: half of it paid on 0.55, all of it on the price: 1.10 * 1.001; and 20 % up from there.
    made = make_impact("almgren_chriss", temporary=0.5, permanent=1.0)
    opening = 0.1 if fill == "next_open" else 0.0
    returns = [opening, 0.32, opening, 0.32] if fill == "next_open" else [0, 0.2, 0, 0.2]
    value = 0.5 * (1 + opening)
    rules = free_rules(impact=made, fill=fill)
    account, move = once(rules, [0.5], [returns], average_value=2e6 * value, volatility=SIGMA)
    paid = 0.0005 * value
    final = (1 + returns[3]) * 1.001
    gain = 0.5 * (final - (1 + opening)) - paid
    assert move.cost == pytest.approx(paid, rel=1e-4)
    assert move.gain == pytest.approx(gain, rel=1e-4)
    assert account.weights[0] == pytest.approx(0.5 * final / (1 + gain), rel=1e-5)


def test_at_the_close_the_jump_falls_on_the_closing_price():
    made = make_impact("obizhaeva_wang", permanent=1.0, transient=0.0)
    account, move = once(
        free_rules(impact=made, fill="next_close"),
        [0.5],
        [[0, 0.1, 0, 0.1]],
        average_value=1.1e6,
        volatility=SIGMA,
    )
    # 0.55 at the close, where 11 trade: 1/20 of it, so the price ends at 1.1 * 1.001; half of
    # the jump is paid.
    assert move.gain == pytest.approx(0.55 * 0.0005, rel=1e-4)
    assert account.weights[0] == pytest.approx(0.55 * 1.001 / (1 + 0.55 * 0.0005), rel=1e-5)


def test_a_round_trip_that_would_earn_is_refused():
    for model, options in {
        "square_root": {"permanent": 1.01},
        "almgren_chriss": {"temporary": 0.4, "permanent": 0.9},
    }.items():
        with pytest.raises(JaxtradeError, match=r"permanent is .*, or round trips would earn"):
            make_impact(model, **options)


def test_the_transient_part_dies_away_exponentially():
    # One order, then the price returns by 1 - exp(-decay * years) of what it jumped.
    decay, years, jump = 500.0, 1e-3, 0.75 * SIGMA / 20
    made = make_impact("obizhaeva_wang", permanent=0.0, transient=0.75, decay=decay)
    account, _ = sell(free_rules(impact=made), [0.5, 0, 0, 0], years=years, average_value=1e6)
    left = jump * np.exp(-decay * years * np.arange(4))
    np.testing.assert_allclose(account.displacement[:, 0], left, rtol=1e-5)
    worth = 1 - 0.5 * (1 + jump / 2) + 0.5 * (1 + left)
    np.testing.assert_allclose(equity_of(account), worth, atol=2e-7)


# Almgren and Chriss, "Optimal execution of portfolio transactions" (2001), sections 1.2 and 2.2.
# Liquidate X units, worth 1 apiece, in N periods of tau bars' volume; n_k are sold in period k:
#     E = gamma X^2 / 2 + epsilon sum n_k + (eta / tau - gamma / 2) sum n_k^2
#     V = sigma^2 tau sum x_k^2,  x_k what is left after period k
# Here tau = 1 bar, eta = temporary * sigma / capacity, gamma = permanent * sigma / capacity.

PERIODS, WHOLE, CAPACITY = 6, 0.9, 100.0
EPSILON, TEMPORARY, PERMANENT = 3e-4, 1.0, 0.6


def shortfall(sold):
    """What liquidating in parts f64[N] costs, per the ledger: the equity that is missing after."""
    made = make_impact("almgren_chriss", fixed=EPSILON, temporary=TEMPORARY, permanent=PERMANENT)
    rules = exact(free_rules(impact=made, deposit=1.0))
    bar = exact(still(PERIODS, 1, volatility=SIGMA, average_value=CAPACITY, years=0.0))
    bar = jax.tree.map(lambda leaf: leaf[0], bar)
    account = exact(ledger.open_account(1, rules)).replace(weights=jnp.full(1, WHOLE))

    def one(carry, units):
        account, price = carry
        order = Order(quantity=-units[None] * price * jnp.exp(-account.log_equity))
        account, _ = ledger.step(account, order, bar, rules)
        return (account, price * (1 - PERMANENT * SIGMA * units * price / CAPACITY)), None

    (account, _), _ = jax.lax.scan(one, (account, jnp.ones(())), sold)
    return 1 - jnp.exp(account.log_equity)


def exact(tree):
    """Float leaves in float64."""
    is_float = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf.astype("float64") if is_float(leaf) else leaf, tree)


def test_the_cost_of_any_liquidation_is_almgren_and_chriss_s():
    generator = np.random.default_rng(0)
    eta, gamma = TEMPORARY * SIGMA / CAPACITY, PERMANENT * SIGMA / CAPACITY
    with jax.enable_x64(True):
        compiled = jax.jit(shortfall)
        for _ in range(5):
            sold = generator.dirichlet(np.ones(PERIODS)) * WHOLE
            expected = 0.5 * gamma * WHOLE**2 + EPSILON * sold.sum()
            expected += (eta - 0.5 * gamma) * (sold**2).sum()
            assert float(compiled(jnp.asarray(sold))) == pytest.approx(expected, rel=3e-4)


def test_the_best_liquidation_found_by_gradients_is_almgren_and_chriss_s():
    eta, gamma = TEMPORARY * SIGMA / CAPACITY, PERMANENT * SIGMA / CAPACITY
    risk_aversion = 0.4 * (eta - 0.5 * gamma) / SIGMA**2

    def objective(first):
        sold = jnp.append(first, WHOLE - first.sum())
        left = WHOLE - jnp.cumsum(sold)
        return shortfall(sold) + risk_aversion * SIGMA**2 * (left**2).sum()

    with jax.enable_x64(True):
        slope = jax.jit(jax.vmap(jax.grad(objective)))
        sold, by = np.full(PERIODS - 1, WHOLE / PERIODS), 1e-3
        for _ in range(3):  # Newton's: the objective is all but quadratic
            slopes = np.asarray(slope(jnp.asarray(sold + by * np.eye(PERIODS, PERIODS - 1, -1))))
            sold = sold - np.linalg.solve((slopes[1:] - slopes[0]) / by, slopes[0])
    kappa = np.arccosh(1 + 0.4 / 2)
    times = np.arange(1, PERIODS)
    left = WHOLE * np.sinh(kappa * (PERIODS - times)) / np.sinh(kappa * PERIODS)
    np.testing.assert_allclose(WHOLE - np.cumsum(sold), left, rtol=2e-3)
    assert sold[0] > 1.5 * WHOLE / PERIODS


# Can it be gamed? What a round trip leaves, from flat to flat


def best_round_trip(scale, model, **coefficients):
    """The largest gain, over equity, of random ways from flat to flat, and what it took to move
    prices by so much: the sum of the squares of the jumps.
    """
    rules = free_rules(impact=make_impact(model, **coefficients), deposit=1.0)
    bars = still(8, 1, volatility=SIGMA, average_value=1.0, years=1e-6)
    generator = np.random.default_rng(0)
    orders = scale * generator.standard_normal((300, 7)) * (generator.random((300, 7)) < 0.5)
    account, move = _round_trips(jnp.asarray(orders, jnp.float32), bars, rules)
    np.testing.assert_allclose(account.weights[:, -1], 0, atol=1e-6)
    is_some = np.abs(orders).max(1) > 0.1 * scale
    squares = ((SIGMA * np.asarray(move.traded)) ** 2).sum((1, 2))
    gain = np.expm1(np.asarray(account.log_equity)[:, -1])
    return gain[is_some].max(), (gain[is_some] / squares[is_some]).max()


@pytest.mark.parametrize("scale", [0.05, 0.5, 1.5])
@pytest.mark.parametrize("model", ["square_root", "almgren_chriss"])
def test_a_round_trip_loses(model, scale):
    assert best_round_trip(scale, model)[0] < 0


def test_a_round_trip_through_a_book_gains_at_most_in_second_order():
    # Values are counted at prices already moved: a sale and its purchase differ by their jumps.
    for scale in (0.05, 0.5):
        assert best_round_trip(scale, "obizhaeva_wang")[1] < 8 * scale


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None, None))
def _round_trips(orders, bars, rules):
    def one(account, row):
        order, bar, is_last = row
        quantity = jnp.where(is_last, -account.weights, order)
        account, move = ledger.step(account, Order(quantity=quantity), bar, rules)
        return account, (account, move)

    rows = (jnp.append(orders, 0.0), bars, jnp.arange(len(orders) + 1) == len(orders))
    return jax.lax.scan(one, ledger.open_account(1, rules), rows)[1]


# Bad input

BAD = {
    ("cubic", ()): r"unknown impact model 'cubic': .*square_root",
    ("square_root", (("decay", 1.0),)): r"unknown coefficient of square_root 'decay': ",
    ("square_root", (("coefficient", -1.0),)): "coefficient is -1.0: give a finite number, 0 or",
    ("almgren_chriss", (("fixed", np.nan),)): "fixed is nan: give a finite number, 0 or more",
    ("obizhaeva_wang", (("decay", np.inf),)): "decay is inf: give a finite number, 0 or more",
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input(case):
    model, coefficients = case
    with pytest.raises(JaxtradeError, match=BAD[case]) as error:
        make_impact(model, **dict(coefficients))
    assert "\n" not in str(error.value)


def test_impact_and_lots_exclude_each_other():
    with pytest.raises(JaxtradeError, match="impact and lot_size exclude each other"):
        make_rules(impact=make_impact("square_root"), lot_size=1.0, costs=make_costs(**FREE))
