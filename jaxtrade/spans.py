"""Spans of a market: training, validation and test rows in time order, with an embargo between."""

import dataclasses

from jaxtrade.market import Market
from jaxtrade.specs import JaxtradeError

MIN_SPAN_ROWS = 20


def require_rows(market: Market, needed: int, why: str) -> None:
    """Check that a market is long enough.

    Raises:
        JaxtradeError: it has fewer than `needed` rows; `why` says what needs them.
    """
    if market.num_bars < needed:
        raise JaxtradeError(
            f"{market.name()}: has {market.num_bars:,} rows, fewer than the {needed:,} "
            f"needed for {why}: give a longer file"
        )


@dataclasses.dataclass(frozen=True)
class Span:
    """Rows first to last, both included: decisions at first .. last - 1, the return of row last
    is the last one earned.
    """

    first: int
    last: int

    @property
    def num_steps(self) -> int:
        """Decisions in the span."""
        return self.last - self.first


@dataclasses.dataclass(frozen=True)
class Spans:
    """Three spans in time order, with no row in common."""

    train: Span
    validation: Span
    test: Span


def split(
    num_bars: int,
    *,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    embargo: int,
    first: int,
) -> Spans:
    """Divide rows first .. num_bars - 1 in time order.

    Args:
        num_bars: T.
        fractions: of the rows, for training, validation and test; they add up to 1.
        embargo: rows left out between neighbours, taken from the later one's start.
        first: the first usable row, after warm-up.

    Raises:
        JaxtradeError: fractions not above 0 or not adding up to 1, a negative number, or a span
            of fewer than 20 rows.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise JaxtradeError(f"fractions are {fractions}: give three above 0 that add up to 1")
    if embargo < 0 or first < 0:
        raise JaxtradeError(f"embargo is {embargo}, first is {first}: give 0 or more")
    usable = num_bars - first
    cuts = [first + round(usable * part) for part in (fractions[0], fractions[0] + fractions[1])]
    spans = Spans(
        train=Span(first, cuts[0] - 1),
        validation=Span(cuts[0] + embargo, cuts[1] - 1),
        test=Span(cuts[1] + embargo, num_bars - 1),
    )
    named = {"train": spans.train, "validation": spans.validation, "test": spans.test}
    for name, span in named.items():
        if span.last - span.first + 1 < MIN_SPAN_ROWS:
            raise JaxtradeError(
                f"{name} span has {max(span.last - span.first + 1, 0)} rows of {num_bars:,} "
                f"(first {first}, embargo {embargo}): at least {MIN_SPAN_ROWS} are needed: give "
                "more rows, a smaller embargo or other fractions"
            )
    return spans
