"""What the account would hold if the orders under way were filled, in whichever way is worse."""

from collections.abc import Callable, Container, Iterable, Mapping
from decimal import Decimal

from jaxtrade.live.events import OrderIntent, Side

Span = tuple[float, float]
"""Value of a symbol's position if only its sales are filled, and if only its purchases are."""

_FLAT = (0.0, 0.0)


class Exposure:
    """Values of positions and orders by symbol, account currency; NaN where a price is missing, so
    that nothing is found to be within a limit.
    """

    def __init__(self, spans: dict[str, Span]) -> None:
        self.spans = spans

    def worst(self, symbol: str) -> float:
        """Largest absolute value of a symbol."""
        return _worst(self.spans.get(symbol, _FLAT))

    def gross(self, symbols: Container[str] | None = None) -> float:
        """Sum of the largest absolute values, of some symbols or of all."""
        return sum(
            _worst(span)
            for symbol, span in self.spans.items()
            if symbols is None or symbol in symbols
        )

    def net(self) -> float:
        """Largest absolute sum of the values."""
        lowest = sum(low for low, _ in self.spans.values())
        highest = sum(high for _, high in self.spans.values())
        return _worst((lowest, highest))

    def loss(self, distance: Callable[[str], float]) -> float:
        """What is lost where every symbol moves against the account by its distance, a fraction."""
        return sum(_worst(span) * distance(symbol) for symbol, span in self.spans.items())

    def with_order(self, symbol: str, value: float) -> "Exposure":
        """With one more order of a signed value."""
        low, high = self.spans.get(symbol, _FLAT)
        span = (low, high + value) if value > 0 else (low + value, high)
        return Exposure({**self.spans, symbol: span})


def exposure_of(
    positions: Mapping[str, Decimal],
    orders: Iterable[tuple[OrderIntent, Decimal]],
    unit: Callable[[str], float],
) -> Exposure:
    """Of positions, signed units, and of the units that orders have left; reduce-only orders add
    nothing. unit: value of one unit of a symbol.
    """
    spans: dict[str, Span] = {}
    for symbol, quantity in positions.items():
        if quantity:
            value = float(quantity) * unit(symbol)
            spans[symbol] = value, value
    for intent, left in orders:
        if intent.reduce_only:
            continue
        value = float(left) * unit(intent.symbol)
        low, high = spans.get(intent.symbol, _FLAT)
        is_buy = intent.side is Side.BUY
        spans[intent.symbol] = (low, high + value) if is_buy else (low - value, high)
    return Exposure(spans)


def _worst(span: Span) -> float:
    low, high = abs(span[0]), abs(span[1])
    return low if low > high or low != low else high
