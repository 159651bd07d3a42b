"""Quotes as they come: which of them are sane, how old, how usual their spread."""

import dataclasses


@dataclasses.dataclass(slots=True)
class Quote:
    """The last sane quote of a symbol, and what was seen after it.

    seen_ns, changed_ns: steady clock, when it came and when it last differed from the one before;
    epoch: of the connection; spread: median of bid to ask over the middle; fault: why the newest
    quote was not taken, "" while it was.
    """

    bid: float
    ask: float
    seen_ns: int
    changed_ns: int
    epoch: int
    spread: float = 0.0
    fault: str = ""

    @property
    def middle(self) -> float:
        """Between bid and ask."""
        return 0.5 * (self.bid + self.ask)
