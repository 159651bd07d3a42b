import numpy as np

from jaxtrade import features
from jaxtrade.lengths import LEAST_ROWS, SHARE_BITS, common_length
from jaxtrade.specs import FeatureSpec
from jaxtrade.synthetic import make_market, processes


def test_a_common_length_is_long_enough_and_not_much_longer():
    rows = np.unique(np.geomspace(1, 10_000_000, 3_000).astype(int))
    lengths = np.array([common_length(n) for n in rows.tolist()])
    assert (lengths >= rows).all() and (np.diff(lengths) >= 0).all()
    assert (lengths[rows <= LEAST_ROWS] == LEAST_ROWS).all()
    waste = lengths - rows
    assert (waste < np.maximum(LEAST_ROWS, rows / 2**SHARE_BITS)).all()
    assert len(set(lengths[rows > 1_000_000])) <= 8 * 4  # lengths of one doubling: eight
    assert [common_length(n) for n in (LEAST_ROWS + 1, 50_000)] == [2 * LEAST_ROWS, 53_248]


def test_markets_and_features_of_many_lengths_share_their_programs():
    spec = FeatureSpec(names=("log_return",), window=3)
    longer = make_market(seed=5, num_bars=1_997)
    table = features.raw_table(spec, longer)
    made = processes.sample_bars._cache_size(), features._scan_table._cache_size()
    for num_bars in (100, 1_003):
        market = make_market(seed=5, num_bars=num_bars)
        rows = features.raw_table(spec, market)
        np.testing.assert_array_equal(market.bars, longer.bars[:num_bars])
        np.testing.assert_array_equal(market.volume, longer.volume[:num_bars])
        np.testing.assert_array_equal(rows, table[:num_bars])
    assert (processes.sample_bars._cache_size(), features._scan_table._cache_size()) == made
