import numpy as np
import pytest

from jaxtrade.market import Market
from jaxtrade.spans import Span, require_rows, split
from jaxtrade.specs import JaxtradeError
from tests.markets import random_frame


def test_require_rows():
    market = Market.from_frame(random_frame(30), source="A.csv")
    require_rows(market, 30, "window 32")
    with pytest.raises(
        JaxtradeError, match=r"A.csv: has 30 rows, fewer than the 31 needed for win"
    ):
        require_rows(market, 31, "window 32")


@pytest.mark.parametrize("num_bars", [200, 1001, 6528])
@pytest.mark.parametrize("embargo", [0, 1, 13])
@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.34, 0.33, 0.33)])
def test_split_properties(num_bars, embargo, first, fractions):
    spans = split(num_bars, fractions=fractions, embargo=embargo, first=first)
    assert (spans.train.first, spans.test.last) == (first, num_bars - 1)
    assert spans.validation.first - spans.train.last == embargo + 1
    assert spans.test.first - spans.validation.last == embargo + 1
    rows = [span.last - span.first + 1 for span in (spans.train, spans.validation, spans.test)]
    assert sum(rows) + 2 * embargo == num_bars - first
    expected = np.array(fractions) * (num_bars - first) - np.array([0, embargo, embargo])
    np.testing.assert_allclose(rows, expected, atol=1)


def test_split_by_hand():
    spans = split(210, embargo=2, first=10)
    assert spans.train == Span(10, 129)
    assert spans.validation == Span(132, 169)
    assert spans.test == Span(172, 209)
    assert spans.train.num_steps == 119


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"num_bars": 100, "embargo": 2, "first": 0}, "validation span has 18 rows of 100"),
        ({"num_bars": 25, "embargo": 0, "first": 30}, "train span has 0 rows"),
        ({"num_bars": 500, "embargo": 90, "first": 0}, "validation span has 10 rows"),
        ({"num_bars": 500, "embargo": -1, "first": 0}, "embargo is -1"),
        ({"num_bars": 500, "embargo": 0, "first": -1}, "first is -1"),
        (
            {"num_bars": 500, "embargo": 0, "first": 0, "fractions": (0.6, 0.2, 0.1)},
            "give three above 0 that add up to 1",
        ),
    ],
)
def test_split_errors(arguments, problem):
    with pytest.raises(JaxtradeError, match=problem):
        split(**arguments)
