import collections

import numpy as np
import pytest

from tests import cases
from tests.reference.engine import Books

EVENTS = (
    "stop", "target", "gap stop", "gap target", "open fill", "fill", "liquidation", "opening call",
    "hold", "minimum order", "rest", "scaled", "ruin", "whole lots",
)  # fmt: skip


class Watched(Books):
    """Books that count what happened."""

    def __init__(self, *args):
        super().__init__(*args)
        self.events = collections.Counter()

    def decide(self, name, asset, own, distance):
        if isinstance(own, bool | np.bool_):
            self.events[name] += bool(own)
        return super().decide(name, asset, own, distance)

    def whole_lots(self, asset, units):
        whole = super().whole_lots(asset, units)
        self.events["whole lots"] += whole != units
        return whole

    def scale_to_initial_margin(self, fills):
        before = list(self.wanted)
        super().scale_to_initial_margin(fills)
        self.events["scaled"] += before != self.wanted


def play(case):
    """The statements of a case and the books that made them."""
    books = Watched(cases.settings_of(case), case["structure"].num_assets)
    statements = []
    for index in range(case["structure"].num_bars):
        statement = books.bar(cases.row_of(case, index), cases.order_of(case, index))
        books.events["rest"] += bool(books.rest.any())
        statements.append(statement)
        if statement.is_ruined:
            break
    books.events["ruin"] += books.is_ruined
    return statements, books


def test_cases_are_reproducible_and_bars_consistent():
    first, again = cases.draw_case(3), cases.draw_case(3)
    assert first["structure"] == again["structure"]
    np.testing.assert_array_equal(first["tape"]["bars"], again["tape"]["bars"])
    for seed in range(50):
        opening, high, low, closing = np.moveaxis(cases.draw_case(seed)["tape"]["bars"], -1, 0)
        assert (low <= np.minimum(opening, closing)).all()
        assert (high >= np.maximum(opening, closing)).all()
        assert (low > -1).all()


@pytest.fixture(scope="module")
def played():
    return [play(cases.draw_case(seed)) for seed in range(200)]


def test_the_cases_exercise_every_rule(played):
    total = collections.Counter()
    for _, books in played:
        total.update(books.events)
    print(dict(total))
    assert {event for event in EVENTS if total[event] < 5} == set()


def test_books_balance(played):
    for statements, _ in played:
        for one in statements:
            assert np.isfinite(one.equity)
            assert one.equity > 0
            assert one.equity == pytest.approx(one.cash + one.units @ one.price, rel=1e-9)
            assert not one.units[(one.exits != 0)].any() or one.is_ruined
