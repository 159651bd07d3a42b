"""The inside of a bar in the broker's books: brackets, carry, margin. Prices in quote currency."""

import math

import numpy as np

from tests.reference.slips import CLOSE_CALL, Exit, Settings, Ticket

NONE, STOP, TARGET, LIQUIDATION = range(4)


class Inside:
    """The half of `Books` that watches open positions between the trade and the mark."""

    def spread(self, asset: int) -> float:
        """The half spread while the bar runs."""
        return self.each.half_spread[asset] + self.row.half_spread_open[asset]

    def slippage(self, asset: int) -> float:
        """What a market order loses beside the spread, a fraction of its value."""
        varying = self.each.volatility_slippage[asset] * self.row.volatility[asset]
        return self.each.slippage[asset] + varying

    def commission(self, asset: int, units: float, price: float, *, maker: bool) -> float:
        """One ticket: a share of the value and an amount per unit, at least the minimum."""
        is_rebated = maker and self.each.maker_rate is not None
        rate = (self.each.maker_rate if is_rebated else self.each.commission_rate)[asset]
        fee = abs(units) * (price * rate + self.each.commission_per_unit[asset])
        minimum = self.each.minimum_ticket[asset]
        return max(fee, minimum) if minimum > 0 else fee

    def ticks(self, asset: int, price: float, *, up: bool) -> float:
        """A whole number of ticks from the last close, which is on the grid itself."""
        if self.each.tick_size is None:
            return price
        tick, close = self.each.tick_size[asset], self.last_price[asset]
        steps = (price - close) / tick
        off, slack = abs(steps - round(steps)), 1e-6 * max(abs(steps), 1.0)
        if off < 3 * slack + 3e-7 * close / tick:
            self.is_unsure = True
        whole = round(steps) if off <= slack else math.ceil(steps) if up else math.floor(steps)
        return close + whole * tick

    # Brackets

    def set_brackets(self, asset: int, price: float) -> None:
        """Levels of a position just opened at `price`."""
        rules, side = self.settings, np.sign(self.units[asset])
        self.best[asset] = price
        self.stop[asset] = self.target[asset] = np.nan
        if rules.stop_loss is not None:
            level = price * (1 - side * self.each.stop_loss[asset])
            self.stop[asset] = self.ticks(asset, level, up=side < 0)
        if rules.take_profit is not None:
            level = price * (1 + side * self.each.take_profit[asset])
            self.target[asset] = self.ticks(asset, level, up=side > 0)

    def clear_brackets(self, asset: int) -> None:
        """There is no position to protect."""
        self.stop[asset] = self.target[asset] = self.best[asset] = np.nan

    def effective_stop(self, asset: int) -> float:
        """The nearer of the fixed and the trailing stop, NaN if there is none."""
        stop, side = self.stop[asset], np.sign(self.units[asset])
        if self.settings.trailing is None:
            return stop
        trailing = self.best[asset] * (1 - side * self.each.trailing[asset])
        if np.isnan(stop):
            return trailing
        return max(stop, trailing) if side > 0 else min(stop, trailing)

    def touched(
        self, name: str, asset: int, quote: float, level: float, *, above: bool, touch: bool
    ) -> bool:
        """Whether the quote has come to (touch) or through the level, from below or above."""
        if np.isnan(level):
            return False
        beyond = quote > level if above else quote < level
        return self.decide(name, asset, beyond or (touch and quote == level), quote / level - 1)

    def bracket(self, asset: int, start: float) -> Exit | None:
        """How the brackets end the position in this bar, if they do."""
        units, side = self.units[asset], np.sign(self.units[asset])
        is_long = bool(side > 0)
        closing_side = 1 - side * self.spread(asset)
        stop, target = self.effective_stop(asset), self.target[asset]
        best, worst = (self.high, self.low) if is_long else (self.low, self.high)
        favourable = self.close[asset] if self.is_filled_inside[asset] else best[asset]

        def leave(code: int, price: float, at: float) -> Exit:
            fee = self.commission(asset, units, price, maker=code == TARGET)
            if code == STOP:
                fee += abs(units) * price * self.slippage(asset)
            return Exit(code=code, price=price, at=at, fee=fee)

        opening = start * closing_side
        if self.touched("gap target", asset, opening, target, above=is_long, touch=True):
            return leave(TARGET, opening, 0.0)
        if self.touched("gap stop", asset, opening, stop, above=not is_long, touch=True):
            return leave(STOP, opening, 0.0)
        if self.touched(
            "stop", asset, worst[asset] * closing_side, stop, above=not is_long, touch=True
        ):
            distance = start - worst[asset]
            at = (start - stop / closing_side) / distance if distance else 1.0
            return leave(STOP, stop, at)
        if self.touched(
            "target", asset, favourable * closing_side, target, above=is_long, touch=False
        ):
            return leave(TARGET, target, math.inf)
        return None

    def leave(self, asset: int, code: int, price: float, fee: float) -> None:
        """Close the whole position: the proceeds, the ticket, and orders under way are void."""
        self.cash += self.units[asset] * price - fee
        self.exit_cost += fee
        self.units[asset] = 0.0
        self.exits[asset] = code
        self.clear_brackets(asset)
        self.rest[asset] = 0.0
        for tickets in self.queue:
            tickets[asset] = Ticket(units=np.nan)

    # Carry

    def charge_carry(self, prices: list[float]) -> None:
        """Interest, funding and swaps of the whole bar on what is held at these prices."""
        row, years, shorts, paid = self.row, self.row.years, 0.0, 0.0
        for asset, units in enumerate(self.units):
            value = units * prices[asset]
            if units < 0:
                paid += -value * self.each.borrow_rate[asset] * years
                shorts += -value
            paid += value * row.funding[asset]
            swap = self.each.swap_long if units > 0 else self.each.swap_short
            paid -= abs(units) * swap[asset] * row.nights[asset]
        if self.cash < 0:
            paid += -self.cash * self.settings.margin_rate * years
        if self.cash > shorts:
            paid -= (self.cash - shorts) * self.settings.idle_rate * years
        self.cash -= paid
        self.carry += paid

    # Margin

    def on_the_way(self, asset: int, start: list[float], way: float) -> float:
        """The price when all assets are `way` of their distance to their adverse extremes."""
        extreme = self.low[asset] if self.units[asset] > 0 else self.high[asset]
        return start[asset] + way * (extreme - start[asset])

    def free(self, way: float, exits: list, start: list[float], left_until: float) -> float:
        """Equity beyond the maintenance margin, those who left until then counted as cash."""
        money, needed = self.cash, 0.0
        for asset in np.flatnonzero(self.units):
            leaving = exits[asset]
            if leaving is not None and leaving.at <= left_until:
                money += self.units[asset] * leaving.price - leaving.fee
            else:
                price = self.on_the_way(asset, start, way)
                money += self.units[asset] * price
                needed += abs(self.units[asset]) * price * self.each.maintenance[asset]
        return money - needed

    def have_left(self, exits: list, way: float) -> bool:
        """Whether no position is open any more."""
        open_ones = [exits[asset] for asset in np.flatnonzero(self.units)]
        return all(leaving is not None and leaving.at <= way for leaving in open_ones)

    def margin_call(self, exits: list, start: list[float]) -> tuple[float, float] | None:
        """Where on the way free margin ends: (way, the exits up to which have happened)."""
        knots = sorted({0.0, 1.0, *(e.at for e in exits if e is not None and e.at <= 1)})
        places = []
        for left, right in zip(knots, [*knots[1:], None], strict=True):
            if self.have_left(exits, left):
                break
            places.append((self.free(left, exits, start, left), left, left))
            if right is not None:
                places.append((self.free(right, exits, start, left), right, left))
        if not places:
            return None
        first = next((place for place in places if place[0] <= 0), None)
        worst = min(places)
        called = self.decide("liquidation", -1, first is not None, worst[0] / self.last_equity)
        if not called:
            return None
        _, way, left = worst if first is None else first
        low, high = left, way
        for _ in range(100 if first is not None else 0):
            middle = (low + high) / 2
            if self.free(middle, exits, start, left) <= 0:
                high = middle
            else:
                low = middle
        return (high if first is not None else way), left

    def liquidate(self, asset: int, price: float) -> None:
        """A forced market order for the whole position."""
        rate = self.each.liquidation_fee[asset] + self.spread(asset) + self.slippage(asset)
        fee = self.commission(asset, self.units[asset], price, maker=False)
        self.leave(asset, LIQUIDATION, price, fee + abs(self.units[asset]) * price * rate)

    def hold(self, start: list[float], carry_prices: list[float]) -> None:
        """From the start of the path to the close: carry, then brackets and margin, then trailing.

        start, carry_prices: by asset, quote currency.
        """
        settings: Settings = self.settings
        self.charge_carry(carry_prices)
        held = np.flatnonzero(self.units)
        exits: list[Exit | None] = [None] * len(self.units)
        for asset in held:
            exits[asset] = self.bracket(asset, start[asset])
        call = None
        if settings.maintenance is not None and len(held):
            call = self.margin_call(exits, start)
        for asset in held:
            leaving = exits[asset]
            if call is not None and (leaving is None or leaving.at > call[1]):
                self.liquidate(asset, self.on_the_way(asset, start, call[0]))
            elif leaving is not None:
                self.leave(asset, leaving.code, leaving.price, leaving.fee)
            else:
                self.follow(asset)

    def follow(self, asset: int) -> None:
        """The best price since the entry; the bar of an entry inside it counts by its close."""
        better, extreme = (max, self.high) if self.units[asset] > 0 else (min, self.low)
        seen = self.close if self.is_filled_inside[asset] else extreme
        self.best[asset] = better(self.best[asset], seen[asset])

    def decide(self, name: str, asset: int, own, distance: float):
        """Our decision, or the other engine's where ours was a close call."""
        is_close = abs(distance) <= CLOSE_CALL
        if (name, asset) not in self.seen:
            self.is_unsure |= is_close
            return own
        other = self.seen[name, asset]
        if other == own or is_close:
            return other
        raise AssertionError(
            f"bar {self.bar_index}, asset {asset}: {name}: the books say {own}, the engine says "
            f"{other}, {distance:.2e} from the threshold"
        )
