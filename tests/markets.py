"""Small files and frames of bars for tests."""

import numpy as np
import pandas as pd

HEADER = "timestamp,open,high,low,close,volume"
ROWS = (
    "2020-01-01T00:00:00Z,100,110,90,105,10",
    "2020-01-02T00:00:00Z,106,120,104,110,20",
    "2020-01-03T00:00:00Z,110,112,98,99,0",
)


def write_csv(path, rows=ROWS, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def random_frame(num_bars, *, freq="D", seed=0, start="2000-01-03", deviation=0.01):
    """Bars with gaps that enclose open and close; prices in float64."""
    generator = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(deviation * generator.standard_normal(num_bars)))
    open_ = np.roll(close, 1) * np.exp(0.2 * deviation * generator.standard_normal(num_bars))
    open_[0] = 50.0
    spread = np.exp(deviation * np.abs(generator.standard_normal((2, num_bars))))
    return pd.DataFrame(
        {
            "timestamp": pd.date_range(start, periods=num_bars, freq=freq, tz="UTC"),
            "open": open_,
            "high": np.maximum(open_, close) * spread[0],
            "low": np.minimum(open_, close) / spread[1],
            "close": close,
            "volume": generator.integers(0, 1000, num_bars),
        }
    )


def assert_same(first, second):
    assert first.fingerprint() == second.fingerprint()
    np.testing.assert_array_equal(first.bars, second.bars)
