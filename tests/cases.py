"""Random episodes for engines to agree on: plain NumPy dicts, the same float32 numbers for all.

A case is {"structure", "settings", "tape", "orders"}: the structure says which rules exist (what a
compiled engine is specialised to), settings and tape speak the language of `tests.reference.slips`.
"""

import dataclasses
from typing import Any

import numpy as np

from tests.reference.slips import Order, Row, Settings

DAY = 1 / 252
DEPOSIT = 10_000.0
UNIT_RATES = (
    ("commission_per_unit", 0, 5e-4),
    ("swap_long", -5e-4, 2e-4),
    ("swap_short", -5e-4, 2e-4),
)
"""Of the first price."""

BRACKETS = ("stop_loss", "take_profit", "trailing")
Case = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Structure:
    """Which rules there are; level: "limit", "stop" or None for market orders only.

    is_calm: few orders, small costs and gaps, so that an account lives for ten thousands of bars.
    """

    num_assets: int = 1
    num_bars: int = 60
    fill: str = "next_open"
    latency: int = 0
    has_delay: bool = False
    has_participation: bool = False
    has_lots: bool = False
    has_ticks: bool = False
    has_minimum_order: bool = False
    has_maker_rate: bool = False
    has_minimum_ticket: bool = False
    brackets: tuple[str, ...] = ()
    has_margin: bool = False
    impact: str | None = None
    level: str | None = None
    is_calm: bool = False


def draw_structure(generator: np.random.Generator, num_bars: int = 60) -> Structure:
    """Each rule on with some probability."""

    def likely(probability: float) -> bool:
        return bool(generator.random() < probability)

    fill = str(generator.choice(["next_open", "next_close", "close"], p=[0.6, 0.2, 0.2]))
    is_open = fill == "next_open"
    latency = int(generator.choice([0, 0, 0, 1, 2]))
    impacts = [None, None, None, "square_root", "almgren_chriss", "obizhaeva_wang"]
    impact = impacts[generator.integers(len(impacts))]
    level = [None, "limit", "stop"][generator.integers(3)]
    return Structure(
        num_assets=int(generator.choice([1, 2, 3])),
        num_bars=num_bars,
        fill=fill,
        latency=latency,
        has_delay=is_open and likely(0.25),
        has_participation=likely(0.25),
        has_lots=likely(0.4) and impact is None,
        has_ticks=likely(0.25) and impact is None,
        has_minimum_order=likely(0.2),
        has_maker_rate=likely(0.5),
        has_minimum_ticket=likely(0.4),
        brackets=tuple(name for name in BRACKETS if likely(0.3)),
        has_margin=likely(0.5),
        impact=impact,
        level=level if is_open and not latency else None,
    )


def draw_case(seed: int, structure: Structure | None = None, num_bars: int = 60) -> Case:
    """The case of this seed: market, rules and orders."""
    generator = np.random.default_rng(seed)
    structure = structure or draw_structure(generator, num_bars)
    largest = 0.01 if structure.is_calm else 0.04
    deviation = np.exp(generator.uniform(np.log(0.003), np.log(largest), structure.num_assets))
    price = np.exp(generator.uniform(0, 7, structure.num_assets))
    settings = draw_settings(generator, structure, deviation, price)
    tape = draw_tape(generator, structure, deviation, price)
    orders = draw_orders(generator, structure, deviation, settings)
    return {"structure": structure, "settings": settings, "tape": tape, "orders": orders}


# Parts of a case


def draw_tape(generator, structure: Structure, deviation, price) -> dict[str, np.ndarray]:
    """Columns f32[T, A] (bars f32[T, A, 4], years and nights f32[T]); some big gaps.

    deviation: of a bar's return; price: before the first bar, quote currency; both f64[A].
    """
    shape = (structure.num_bars, structure.num_assets)
    normal = generator.standard_normal
    is_gap = generator.random(shape) < (0.01 if structure.is_calm else 0.1)
    gap = 0.3 * deviation * normal(shape) * np.where(is_gap, 15, 1)
    opening = np.exp(np.clip(gap, -1.5, 1.0))
    closing = opening * np.exp(deviation * normal(shape))
    # In a fifth of the bars the open or the close is an extreme.
    tails = np.where(generator.random((2, *shape)) < 0.2, 0, np.abs(normal((2, *shape))))
    high = np.maximum(opening, closing) * np.exp(0.5 * deviation * tails[0])
    low = np.minimum(opening, closing) * np.exp(-0.5 * deviation * tails[1])
    bars = np.float32(np.stack([opening, high, low, closing], axis=-1) - 1)
    growth = np.cumprod(1 + bars[:, :, 3].astype(np.float64), axis=0)
    day = DAY / 100 if structure.is_calm else DAY
    volume = DEPOSIT * np.exp(generator.uniform(-2, 2.5, shape))
    return {
        "bars": bars,
        "years": np.float32(day * generator.choice([1, 1, 3, 30], shape[0])),
        "nights": np.float32(generator.choice([0, 1, 3], shape[0])),
        "price": np.float32(price * np.concatenate([np.ones((1, shape[1])), growth[:-1]])),
        "half_spread_open": np.float32(generator.exponential(3e-4, shape)),
        "half_spread_close": np.float32(generator.exponential(1e-4, shape)),
        "dividend": np.float32(np.where(generator.random(shape) < 0.03, 0.01, 0)),
        "funding": np.float32((1e-5 if structure.is_calm else 1e-3) * normal(shape)),
        "volume_value": np.float32(volume),
        "average_value": np.float32(200 * DEPOSIT * np.exp(0.3 * normal(shape))),
        "volatility": np.float32(deviation * np.exp(0.3 * normal(shape))),
    }


def draw_settings(generator, structure: Structure, deviation, price) -> dict[str, Any]:
    """Keywords of `Settings` (and of nothing else); numbers are exact in float32."""
    num_assets, uniform = structure.num_assets, generator.uniform

    def some(low: float, high: float, off: float = 0.3) -> np.ndarray:
        values = uniform(low, high, num_assets) * (0.05 if structure.is_calm else 1)
        return np.float32(values if generator.random() > off else np.zeros(num_assets))

    settings: dict[str, Any] = {
        "deposit": DEPOSIT,
        "fill": structure.fill,
        "latency": structure.latency,
        "no_trade_band": float(np.float32(generator.choice([0, 0.02, 0.1]))),
        "commission_rate": some(0, 2e-3),
        "half_spread": some(0, 1e-3),
        "slippage": some(0, 1e-3, 0.5),
        "volatility_slippage": some(0, 0.05, 0.6),
        "borrow_rate": some(0, 0.2),
        "margin_rate": float(some(0, 0.2)[0]),
        "idle_rate": float(some(0, 0.05)[0]),
    }
    if structure.impact is None:  # these are per unit, and impact moves the price of a unit
        for name, low, high in UNIT_RATES:
            settings[name] = np.float32(some(low, high) * price)
    if structure.has_minimum_ticket:
        settings["minimum_ticket"] = np.float32(uniform(0.01, 3, num_assets))
    if structure.has_maker_rate:
        settings["maker_rate"] = np.float32(uniform(-2e-4, 1e-3, num_assets))
    if structure.has_delay:
        settings["delay"] = float(np.float32(uniform(0.05, 1)))
    if structure.has_participation:
        settings["participation"] = float(np.float32(uniform(0.2, 1)))
    if structure.has_lots:
        settings["lot_size"] = power_of_two(DEPOSIT / price * uniform(1e-3, 0.1, num_assets))
    if structure.has_ticks:
        settings["tick_size"] = power_of_two(price * uniform(2e-4, 4e-3, num_assets))
    if structure.has_minimum_order:
        settings["minimum_order"] = float(np.float32(uniform(0.01, 0.1)))
    for name in structure.brackets:
        wide = 2.5 if name == "take_profit" else 1.5
        settings[name] = np.float32(deviation * uniform(0.7, 2 * wide))
    if structure.has_margin:
        initial = np.exp(uniform(np.log(0.02), np.log(0.5)))
        settings["initial"] = np.float32(np.full(num_assets, initial))
        settings["maintenance"] = np.float32(initial * uniform(0.5, 0.95, num_assets))
        settings["liquidation_fee"] = float(some(0, 0.01)[0])
    return settings | draw_impact(generator, structure)


def power_of_two(numbers) -> np.ndarray:
    """The nearest powers of two, exact in float32."""
    return np.float32(2.0 ** np.round(np.log2(numbers)))


def draw_impact(generator, structure: Structure) -> dict[str, Any]:
    """The coefficients of the kind of impact there is."""
    names = {
        None: (),
        "square_root": ("coefficient", "permanent"),
        "almgren_chriss": ("fixed", "temporary", "permanent"),
        "obizhaeva_wang": ("permanent", "transient", "decay"),
    }[structure.impact]
    scale = {"fixed": 2e-4, "decay": 200.0}
    drawn: dict[str, Any] = {
        name: np.float32(generator.uniform(0, scale.get(name, 1.0), structure.num_assets))
        for name in names
    }
    if "temporary" in drawn:  # else buying and selling back would earn, which is refused
        drawn["permanent"] = np.minimum(drawn["permanent"], 2 * drawn["temporary"])
    return drawn | ({"impact": structure.impact} if structure.impact else {})


def draw_orders(generator, structure: Structure, deviation, settings) -> dict[str, np.ndarray]:
    """Targets f32[T, A], NaN = leave it, with a level for some of them."""
    shape = (structure.num_bars, structure.num_assets)
    leverage = generator.choice([0.8, 1.5, 12.0], p=[0.4, 0.3, 0.3])
    if structure.has_margin:
        leverage = generator.uniform(0.7, 2.0) / settings["initial"][0]
    target = generator.uniform(-leverage, leverage, shape) / structure.num_assets
    if structure.is_calm:
        target *= 0.5 / leverage
    target[generator.random(shape) < (0.95 if structure.is_calm else 0.6)] = np.nan
    target[generator.random(shape) < 0.1] = 0.0
    orders = {"target": np.float32(target)}
    if structure.level:
        level = 0.8 * deviation * generator.standard_normal(shape)
        level[generator.random(shape) < 0.4] = np.nan
        orders[structure.level] = np.float32(level)
    return orders


# For the books


def settings_of(case: Case) -> Settings:
    """The rules, as the broker reads them."""
    return Settings(**case["settings"])


def row_of(case: Case, index: int) -> Row:
    """One row of the tape."""
    return Row(**{name: column[index] for name, column in case["tape"].items()})


def order_of(case: Case, index: int) -> Order:
    """The order given before that bar."""
    return Order(**{name: column[index] for name, column in case["orders"].items()})
