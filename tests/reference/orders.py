"""Orders in the broker's books: sizing, queue, levels, margin and volume. Amounts are units."""

import dataclasses
import math

import numpy as np

from tests.reference.inside import Inside
from tests.reference.slips import CLOSE_CALL, DUST, Order, Ticket


class Orders(Inside):
    """The part of `Books` between a wish and the amount that is dealt."""

    def send(self, order: Order) -> None:
        """Size it, queue it; what is due comes on top of what is left of earlier orders."""
        tickets = [Ticket(units=units) for units in self.sized(order)]
        for name, level in (("limit", order.limit), ("stop", order.stop)):
            for asset, close in enumerate(self.price if level is not None else []):
                price = close * (1 + float(level[asset]))
                tickets[asset] = dataclasses.replace(tickets[asset], **{name: price})
        self.queue.append(tickets)
        nothing = [Ticket(units=np.nan)] * self.n
        arrived = self.queue.pop(0) if len(self.queue) > self.settings.latency else nothing
        self.working = []
        for left, ticket in zip(self.rest, arrived, strict=True):
            if np.isnan(ticket.units) or ticket.units == 0:
                self.working.append(Ticket(units=left))
            else:
                self.working.append(dataclasses.replace(ticket, units=left + ticket.units))
        self.wanted = [ticket.units for ticket in self.working]
        self.rest[:] = 0.0

    def sized(self, order: Order) -> list[float]:
        """Units to trade by asset, NaN to leave things as they are."""
        if order.lots is not None:
            return [float(n) * self.each.lot_size[a] for a, n in enumerate(order.lots)]
        per_exposure = [self.equity / price for price in self.price]
        if order.exposure is not None:
            amounts = zip(order.exposure, per_exposure, strict=True)
            return [float(d) * units for d, units in amounts]
        return [
            self.towards(asset, float(target), per_exposure[asset])
            for asset, target in enumerate(order.target)
        ]

    def towards(self, asset: int, target: float, per_exposure: float) -> float:
        """Units from what is held and under way to the target; NaN if that is not worth a trade.

        In lots the position wanted is the target cut off towards zero, never more than asked.
        """
        if np.isnan(target):
            return np.nan
        queued = [tickets[asset].units for tickets in self.queue]
        parts = [self.units[asset], self.rest[asset], *(q for q in queued if not np.isnan(q))]
        coming = sum(parts)
        if self.settings.lot_size is None and abs(coming) <= DUST * per_exposure:
            coming = 0.0  # they cancel out
        if target == 0:
            return -coming
        rules, wanted = self.settings, target * per_exposure
        off = abs(wanted - coming) / per_exposure - rules.no_trade_band
        if self.decide("hold", asset, off <= 0, off):
            return np.nan
        units = self.whole_lots(asset, wanted) - coming
        units = self.agreed_lots(asset, units, "order lots")
        if rules.minimum_order is not None:
            off = abs(units) / per_exposure - rules.minimum_order
            if self.decide("minimum order", asset, off < 0, off):
                return np.nan
        return units

    def whole_lots(self, asset: int, units: float) -> float:
        """Truncated towards zero."""
        if self.settings.lot_size is None:
            return units
        lots = units / self.each.lot_size[asset]
        off = abs(lots - round(lots)) / max(abs(lots), 1.0)
        whole = round(lots) if off <= CLOSE_CALL else math.trunc(lots)
        self.lots_margin[asset] = min(self.lots_margin[asset], off / 2)
        return whole * self.each.lot_size[asset]

    def agreed_lots(self, asset: int, units: float, name: str = "filled lots") -> float:
        """The amount, or the other engine's where a truncation was a close call."""
        if self.settings.lot_size is None:
            return units
        lots = round(units / self.each.lot_size[asset])
        agreed = self.decide(name, asset, lots, self.lots_margin[asset])
        return agreed * self.each.lot_size[asset]

    def cancel(self, asset: int) -> None:
        """The order that has arrived for this asset, and what is left of earlier ones."""
        self.working[asset] = Ticket(units=0.0)
        self.wanted[asset] = 0.0

    # Limit and stop entry orders

    def fill_levels(self, fills: list[float]) -> None:
        """Which orders with a level deal, and where: changes fills and wanted."""
        for asset, ticket in enumerate(self.working):
            if np.isnan(ticket.limit) and np.isnan(ticket.stop):
                continue
            fills[asset] = self.open[asset]
            if ticket.units == 0:
                continue
            is_limit, is_buy = not np.isnan(ticket.limit), ticket.units > 0
            level = ticket.limit if is_limit else ticket.stop
            level = self.ticks(asset, level, up=is_limit != is_buy)
            quoted = 1 + self.spread(asset) if is_buy else 1 - self.spread(asset)
            above = is_limit != is_buy  # a sell limit and a buy stop wait above the market
            extreme = self.high[asset] if above else self.low[asset]
            where = {"above": above, "level": level}
            if self.touched("open fill", asset, self.open[asset] * quoted, touch=True, **where):
                continue
            if self.touched("fill", asset, extreme * quoted, touch=not is_limit, **where):
                fills[asset] = level
                self.is_filled_inside[asset] = True
            else:
                self.cancel(asset)

    # Bounds of the amount

    def scale_to_initial_margin(self, fills: list[float]) -> None:
        """Cut the part of the orders that adds exposure to what the equity can carry."""
        if self.settings.initial is None:
            return
        reducing = [
            -math.copysign(min(abs(q), abs(held)), held) if q * held < 0 else 0.0
            for q, held in zip(self.wanted, self.units, strict=True)
        ]

        def units_after(scale: float) -> list[float]:
            return [r + scale * (q - r) for q, r in zip(self.wanted, reducing, strict=True)]

        def is_covered(scale: float) -> bool:
            needed = sum(
                self.each.initial[a] * abs(self.units[a] + q) * fills[a]
                for a, q in enumerate(units_after(scale))
            )
            return needed <= self.worth(fills)

        low, high = 0.0, 1.0
        if is_covered(1.0):
            return
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if is_covered(middle) else (low, middle)
        for asset, units in enumerate(units_after(low)):
            self.wanted[asset] = self.whole_lots(asset, units)

    def share_of_volume(self, asset: int) -> float:
        """What the bar's volume lets through; the rest of a market order goes on waiting."""
        units = self.wanted[asset]
        if self.settings.participation is None or units == 0:
            return units
        in_bar = self.row.volume_value[asset] / self.last_price[asset]
        most = self.each.participation[asset] * in_bar
        if abs(units) <= most:
            return units
        dealt = self.whole_lots(asset, math.copysign(most, units))
        ticket = self.working[asset]
        if np.isnan(ticket.limit) and np.isnan(ticket.stop):
            self.rest[asset] = units - dealt
        return dealt
