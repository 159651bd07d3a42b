"""The engine against the broker's books, on random episodes under random rules."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import ledger
from jaxtrade.brackets import make_brackets
from jaxtrade.costs import make_costs
from jaxtrade.impact import make_impact
from jaxtrade.margin import make_margin
from jaxtrade.orders import Order
from jaxtrade.rules import make_rules
from jaxtrade.sizing import delta_order, lots_order
from jaxtrade.tape import PRICES, Tape, make_tape
from tests import cases
from tests.cases import BRACKETS, DEPOSIT, Structure
from tests.reference.engine import Books
from tests.reference.inside import LIQUIDATION, STOP, TARGET

TOLERANCE = 1e-6
FLOOR, CEILING = 0.05, 20.0
"""Outside of these parts of the deposit an account is no longer compared."""

COSTS = (
    "commission_rate", "maker_rate", "commission_per_unit", "minimum_ticket", "half_spread",
    "slippage", "volatility_slippage", "borrow_rate", "margin_rate", "idle_rate", "swap_long",
    "swap_short",
)  # fmt: skip
MARGIN = ("initial", "maintenance", "liquidation_fee")
IMPACT = ("coefficient", "fixed", "temporary", "permanent", "transient", "decay")
REST = ("deposit", "fill", "latency", "delay", "participation", "lot_size", "tick_size")


def rules_of(case):
    """The engine's rules of a case."""
    given = case["settings"]

    def some(names):
        return {name: given[name] for name in names if name in given}

    kind = given.get("impact")
    return make_rules(
        costs=make_costs(**some(COSTS)),
        brackets=make_brackets(**some(BRACKETS)),
        margin=make_margin(**some(MARGIN)) if "initial" in given else None,
        impact=make_impact(kind, **some(IMPACT)) if kind else None,
        **some(REST),
    )


def tape_of(case) -> Tape:
    """The engine's tape of a case."""
    columns = dict(case["tape"])
    bars = columns.pop("bars")
    columns |= {name: bars[:, :, i] for i, name in enumerate(PRICES)}
    columns["new_day"] = np.zeros(len(bars), np.float32)
    return make_tape(columns, bars.shape[1])


def sized(account, target, bar, rules, band, minimum):
    """The order of a target, as the environments give it."""
    under_way = ledger.in_flight(account)
    if rules.lot_size is None:
        held = account.weights if under_way is None else account.weights + under_way
        return delta_order(target, held, band, minimum, xp=jnp)
    lot = rules.lot_size * bar.price * ledger.per_currency(account, rules)
    lots = account.lots
    if under_way is not None:
        lots = lots + jnp.round(under_way / lot).astype(jnp.int32)
    return lots_order(target, lots, lot, band, minimum, xp=jnp).astype(jnp.float32) * lot


@functools.partial(jax.jit, static_argnames="level")
@functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, 0, None))
def walked(tape, orders, rules, band, minimum, level):
    """What the engine did in each bar of each case, leaves [N, T, ...]."""

    def one(account, row):
        index, order = row
        bar = tape.bar(index)
        quantity = sized(account, order["target"], bar, rules, band, minimum)
        levels = {}
        if level is not None:
            levels[level] = jnp.where(quantity != 0, order[level], jnp.nan)
        lot = jnp.ones_like(quantity)
        if rules.lot_size is not None:
            lot = rules.lot_size * bar.price * ledger.per_currency(account, rules)
        after, move = ledger.step(account, Order(quantity=quantity, **levels), bar, rules)
        return after, {
            "log_equity": after.log_equity,
            "weights": after.weights,
            "is_ruined": after.is_ruined,
            "cost": move.cost,
            "carry": move.carry,
            "exits": move.exit_code,
            "ordered": quantity,
            "ordered_lots": jnp.round(quantity / lot),
            "filled": move.traded / (1.0 + move.price),
            "filled_lots": jnp.round(move.traded / (1.0 + move.price) / lot),
        }

    num_bars, num_assets = orders["target"].shape
    start = ledger.open_account(num_assets, rules)
    return jax.lax.scan(one, start, (jnp.arange(num_bars), orders))[1]


def run(drawn):
    """Numpy leaves [N, T, ...] for cases of one structure."""

    def stacked(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    settings = [case["settings"] for case in drawn]
    tapes = stacked([tape_of(case) for case in drawn])
    orders = stacked([case["orders"] for case in drawn])
    band = jnp.float32([one["no_trade_band"] for one in settings])
    minimum = jnp.float32([one.get("minimum_order", 0.0) for one in settings])
    rules = stacked([rules_of(case) for case in drawn])
    level = drawn[0]["structure"].level
    return jax.device_get(walked(tapes, orders, rules, band, minimum, level))


def seen_in(bar, structure: Structure):
    """The engine's decisions in one bar, for the books to follow where it was a close call."""
    seen = {}
    is_called = bool((bar["exits"] == LIQUIDATION).any())
    if structure.has_margin:
        seen[("liquidation", -1)] = is_called
        if not is_called:
            seen[("opening call", -1)] = False
    is_cut = structure.has_margin or structure.has_participation or structure.has_lots
    for asset, code in enumerate(bar["exits"]):
        is_nothing = bool(bar["ordered"][asset] == 0)
        seen[("minimum order", asset)] = is_nothing
        if not is_nothing or not (structure.has_lots or structure.has_minimum_order):
            seen[("hold", asset)] = is_nothing
        if structure.has_lots:
            if not (is_nothing and structure.has_minimum_order):
                seen[("order lots", asset)] = int(bar["ordered_lots"][asset])
            seen[("filled lots", asset)] = int(bar["filled_lots"][asset])
        if bar["filled"][asset] != 0 or not is_cut:
            seen[("fill", asset)] = bool(bar["filled"][asset] != 0)
        for kind in (STOP, TARGET):
            name = {STOP: "stop", TARGET: "target"}[kind]
            if code == kind:
                seen[(name, asset)] = True
            elif code != LIQUIDATION:
                seen[(name, asset)] = seen[(f"gap {name}", asset)] = False
    return seen


def compare(case, engine):
    """(bars compared, largest difference of equity over it).

    Over half its peak after larger losses; a tenth of that counts where an account has had or
    ordered a hundred times its equity.
    Raises AssertionError where the two decide differently or come apart.
    """
    structure = case["structure"]
    books = Books(cases.settings_of(case), structure.num_assets)
    worst, peak, gross = 0.0, DEPOSIT, 0.0
    for index in range(structure.num_bars):
        bar = {name: leaf[index] for name, leaf in engine.items()}
        seen = seen_in(bar, structure)
        statement = books.bar(cases.row_of(case, index), cases.order_of(case, index), seen)
        if books.is_unsure:
            return index, worst
        place = f"bar {index}"
        assert statement.is_ruined == bar["is_ruined"], place
        if not FLOOR * DEPOSIT < statement.equity < CEILING * DEPOSIT:
            return index, worst
        np.testing.assert_array_equal(statement.exits, bar["exits"], place)
        equity = DEPOSIT * np.exp(np.float64(bar["log_equity"]))
        peak = max(peak, statement.equity)
        # A loss takes the equity and leaves the rounding, which is one of positions and orders.
        gross = max(gross, np.abs(statement.weights).sum(), np.abs(bar["ordered"]).sum())
        scale = max(statement.equity, peak / 2) * max(1.0, gross / 10)
        worst = max(worst, abs(equity - statement.equity) / scale)
        assert worst < TOLERANCE, (place, statement, bar)
        np.testing.assert_allclose(bar["weights"], statement.weights, rtol=1e-4, atol=2e-5)
    return structure.num_bars, worst


def agree(structure: Structure, first_seed: int, num_cases: int):
    """Play cases of one structure; the share of their bars that was compared."""
    drawn = [cases.draw_case(first_seed + index, structure) for index in range(num_cases)]
    played, num_bars = run(drawn), 0
    for index, case in enumerate(drawn):
        engine = {name: leaf[index] for name, leaf in played.items()}
        try:
            compared, _ = compare(case, engine)
        except AssertionError as error:
            raise AssertionError(f"seed {first_seed + index} of {structure}: {error}") from error
        num_bars += compared
    return num_bars / (num_cases * structure.num_bars)


STRUCTURES = {
    "plain": Structure(num_assets=2, has_maker_rate=True),
    "margin and stops": Structure(num_assets=3, brackets=BRACKETS, has_margin=True),
    "limits in lots and ticks": Structure(
        level="limit", has_lots=True, has_ticks=True, has_maker_rate=True, brackets=BRACKETS[:2]
    ),
    "stop entries in a thin market": Structure(
        num_assets=2, level="stop", has_participation=True, has_margin=True, has_delay=True
    ),
    "limits that meet impact": Structure(
        level="limit", impact="almgren_chriss", has_delay=True, has_participation=True
    ),
    "impact at the next close": Structure(
        num_assets=2, fill="next_close", impact="obizhaeva_wang", brackets=("trailing",),
        has_margin=True, has_minimum_ticket=True,
    ),
    "latency at the last close": Structure(
        num_assets=2, fill="close", latency=2, has_participation=True, impact="square_root",
        brackets=("stop_loss",), has_minimum_order=True, has_minimum_ticket=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_engine_keeps_the_books(name):
    assert agree(STRUCTURES[name], first_seed=0, num_cases=10) > 0.7


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=pytest.mark.slow if seed < 60 else pytest.mark.soak)
        for seed in range(100)
    ],
)
def test_the_engine_keeps_the_books_under_any_rules(seed):
    structure = cases.draw_structure(np.random.default_rng(seed), num_bars=200)
    agree(structure, first_seed=1_000 * seed, num_cases=20)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if number == 0 else pytest.mark.soak)
        for number, name in enumerate(STRUCTURES)
    ],
)
def test_the_engine_keeps_the_books_over_a_life(name):
    structure = dataclasses.replace(STRUCTURES[name], is_calm=True, num_bars=20_000)
    assert agree(structure, first_seed=7, num_cases=3) > 0.3
