"""Where episodes may begin: rows of several markets, their weights and their tags."""

import numpy as np
import pytest

from jaxtrade.envs.episodes import possible_starts


def test_every_row_from_which_an_episode_fits():
    starts, ends = possible_starts([(3, 10), (14, 18)], 4)
    # 3 + 4 = 7 .. 6 + 4 = 10; 14 + 4 = 18.
    np.testing.assert_array_equal(starts, [3, 4, 5, 6, 14])
    np.testing.assert_array_equal(ends, [10, 10, 10, 10, 18])
    assert starts.dtype == ends.dtype == np.int32


def test_whole_markets_begin_at_their_first_rows():
    starts, ends = possible_starts([(3, 10), (14, 18)], None)
    np.testing.assert_array_equal(starts, [3, 14])
    np.testing.assert_array_equal(ends, [10, 18])


def test_an_episode_longer_than_a_market_begins_at_its_first_row():
    starts, ends = possible_starts([(3, 10), (14, 16)], 5)
    np.testing.assert_array_equal(starts, [3, 4, 5, 14])
    np.testing.assert_array_equal(ends, [10, 10, 10, 16])


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5), (0.9, 0.05, 0.05), (0, 1, 3)])
@pytest.mark.parametrize("steps", [4, None])
def test_markets_are_drawn_as_often_as_their_weights(weights, steps):
    spans = [(0, 50), (60, 65), (70, 2_000)]
    starts, ends = possible_starts(spans, steps, weights)
    share = np.asarray(weights) / np.sum(weights)
    for (first, last), part in zip(spans, share, strict=True):
        rows = starts[ends == last]
        assert len(rows) / len(starts) == pytest.approx(part, abs=2e-3)
        if not part:
            continue
        possible = np.arange(first, last - steps + 1) if steps else np.asarray([first])
        drawn, counts = np.unique(rows, return_counts=True)
        assert set(drawn) <= set(possible)
        if len(rows) >= len(possible):
            np.testing.assert_array_equal(drawn, possible)
        else:  # some of a long market that is drawn seldom, from all over it
            assert np.diff(drawn, prepend=first, append=possible[-1] + 1).max() < 30
        assert counts.max() - counts.min() <= 1  # within a market, all alike


def test_only_allowed_rows_begin_an_episode():
    allowed = np.zeros(20, bool)
    allowed[[4, 9, 15]] = True
    starts, ends = possible_starts([(3, 10), (14, 19)], 4, allowed=allowed)
    np.testing.assert_array_equal(starts, [4, 15])  # from 9 it does not fit
    np.testing.assert_array_equal(ends, [10, 19])
    nothing, _ = possible_starts([(3, 10), (14, 19)], 4, allowed=np.zeros(20, bool))
    assert len(nothing) == 0


def test_weights_among_allowed_rows():
    allowed = np.arange(40) % 2 == 0
    starts, ends = possible_starts([(0, 9), (10, 39)], 1, (3, 1), allowed)
    assert (starts % 2 == 0).all()
    assert (ends == 9).mean() == pytest.approx(0.75, abs=2e-3)
