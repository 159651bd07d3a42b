"""From bars to normalised feature rows: one update function, scanned for training, exported live.

The table of a market is `update` scanned over its bars; the exported graph calls the same
`update` once per bar. The normaliser is fitted on the training span alone and frozen from then on.
"""

import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxtrade.frames import at_frame, init_all, split_name, update_all
from jaxtrade.indicators import INDICATORS, Bar, Indicator
from jaxtrade.lengths import common_length
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec, JaxtradeError, MarketSpec

SPREAD_COLUMN = "spread"
"""The context column that holds the relative spread; its feature is called `relative_spread`."""

SPREAD_SWITCH, CONTEXT_SWITCH = "relative_spread", "context"
"""What switches that column on, and all other context columns."""


DEFAULT_FEATURES = FeatureSpec(
    names=("log_return", "rsi", "macd", "ema_10", "ema_50", "volatility", "relative_volume")
)
"""What an environment shows where nothing else is asked for."""


@flax.struct.dataclass(kw_only=True)
class Normaliser:
    """Standardises a feature row: (x - mean) * inverse_scale. Both f32[F]."""

    mean: jax.Array
    inverse_scale: jax.Array


def resolve(
    switches: dict[str, bool], market: MarketSpec, *, window: int, clip: float = 5.0
) -> FeatureSpec:
    """The feature specification from names switched on and off and from what the market has.

    Besides the indicators, each also on a slower frame (`rsi@15m`, see `frames`), there are two
    names: `relative_spread`, the context column `spread` where the market has one, and `context`,
    all other context columns.

    Raises:
        JaxtradeError: an unknown name, a frame that the market's bars do not make up, or nothing
            switched on.
    """
    own = [name for name in switches if name not in (SPREAD_SWITCH, CONTEXT_SWITCH)]
    for name in own:
        _indicator(name, market.bar_seconds)
    context = tuple(
        column
        for column in market.context
        if switches.get(SPREAD_SWITCH if column == SPREAD_COLUMN else CONTEXT_SWITCH, False)
    )
    names = tuple(name for name in own if switches[name])
    if not names and not context:
        raise JaxtradeError("every feature is switched off: an observation needs at least one")
    bar_seconds = market.bar_seconds if any(split_name(name)[1] for name in names) else 0
    return FeatureSpec(
        names=names, context=context, window=window, clip=clip, bar_seconds=bar_seconds
    )


def columns(spec: FeatureSpec) -> tuple[str, ...]:
    """Names of the F columns, in order."""
    own = [column for each in _indicators(spec) for column in each.columns]
    return (*own, *(SPREAD_SWITCH if c == SPREAD_COLUMN else c for c in spec.context))


def groups(spec: FeatureSpec) -> tuple[str, ...]:
    """For each of the F columns, the name of the indicator or context column it belongs to."""
    members = zip(spec.names, _indicators(spec), strict=True)
    own = [name for name, each in members for _ in each.columns]
    return (*own, *columns(spec)[len(own) :])


def lookback(spec: FeatureSpec) -> int:
    """Bars that one observation reaches back by definition: the embargo between spans."""
    return spec.window + max((each.lookback for each in _indicators(spec)), default=1)


def warmup_bars(spec: FeatureSpec) -> int:
    """Bars of history after which the start of the recursions is forgotten to 1e-5."""
    return spec.window + max((each.memory for each in _indicators(spec)), default=1)


def context_rows(spec: FeatureSpec, market: Market) -> np.ndarray:
    """The market's context columns that the specification uses, f32[T, C], in its order.

    Raises:
        JaxtradeError: the market lacks one, or its bars have another length than frames are for.
    """
    if spec.bar_seconds not in (0, market.spec.bar_seconds):
        raise JaxtradeError(
            f"{market.name()}: has bars of {market.spec.bar_seconds} s, the features' frames are "
            f"for bars of {spec.bar_seconds} s: give such bars, or resolve the features anew"
        )
    missing = [name for name in spec.context if name not in market.spec.context]
    if missing:
        raise JaxtradeError(
            f"{market.spec.source}: the features need the column {missing[0]!r}; "
            f"the extra columns there are: {', '.join(market.spec.context) or 'none'}"
        )
    index = [market.spec.context.index(name) for name in spec.context]
    return np.asarray(market.context)[:, index]


def init_carry(spec: FeatureSpec, num_assets: int) -> jax.Array:
    """The state of all indicators before the first bar, f32[K, A]."""
    return init_all(_indicators(spec), num_assets)


def update(spec: FeatureSpec, carry: jax.Array, bar: Bar) -> tuple[jax.Array, jax.Array]:
    """One bar further: the next carry f32[K, A] and the raw feature row f32[A, F]."""
    carry, values = update_all(_indicators(spec), carry, bar)
    if spec.context:
        num_assets = bar.close.shape[0]
        context = jnp.broadcast_to(bar.context[:, None], (len(spec.context), num_assets))
        values.append(context)
    return carry, jnp.concatenate(values).T


def raw_table(spec: FeatureSpec, market: Market) -> jax.Array:
    """The feature rows of a whole market before normalising, f32[T, A, F]."""
    behind = common_length(market.num_bars) - market.num_bars  # more rows of what the last one has
    columns = (market.bars, market.volume, context_rows(spec, market), market.clock)
    rows = (np.pad(each, [(0, behind), *[(0, 0)] * (each.ndim - 1)], "edge") for each in columns)
    return _scan_table(spec, _indicators(spec), *rows)[: market.num_bars]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scan_table(
    spec: FeatureSpec,
    indicators: tuple[Indicator, ...],
    bars: jax.Array,
    volume: jax.Array,
    context: jax.Array,
    clock: jax.Array,
) -> jax.Array:
    """`update` scanned over bars f32[T, A, 4], volume f32[T, A], context f32[T, C], clock.

    `indicators` are what the names mean now: compiled anew when one is replaced under its name.
    """

    def step(carry: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        prices, volume_row, context_row, clock_row = row
        return update(spec, carry, make_bar(prices.T, volume_row, context_row, clock_row))

    carry = init_carry(spec, bars.shape[1])
    return jax.lax.scan(step, carry, (bars, volume, context, clock))[1]


def make_bar(
    prices: jax.Array | Sequence[jax.Array],
    volume: jax.Array,
    context: jax.Array,
    clock: jax.Array,
) -> Bar:
    """A `Bar` from relative prices f32[4, A], volume f32[A], context f32[C], clock f32[3]."""
    return Bar(
        open=prices[0],
        high=prices[1],
        low=prices[2],
        close=prices[3],
        volume=volume,
        context=context,
        clock=clock,
    )


def fit(table: jax.Array, first: int, last: int) -> Normaliser:
    """Mean and deviation of the raw rows first .. last of f32[T, A, F], over all assets.

    Computed in float64 on the host. A column that does not vary there keeps scale 1.

    Raises:
        JaxtradeError: not 0 <= first <= last < T, or a value there that is not finite.
    """
    if not 0 <= first <= last < len(table):
        raise JaxtradeError(
            f"no rows {first} to {last} to fit on: give 0 <= first <= last < {len(table)}"
        )
    rows = np.asarray(table[first : last + 1], np.float64)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, asset, column = bad[0]
        raise JaxtradeError(
            f"feature column {column} of asset {asset} is {rows[tuple(bad[0])]} at row "
            f"{first + row}: an indicator must give finite numbers"
        )
    mean = rows.mean(axis=(0, 1))
    deviation = rows.std(axis=(0, 1))
    constant = deviation <= 1e-5 * np.abs(mean) + 1e-12
    return Normaliser(
        mean=jnp.asarray(mean, jnp.float32),
        inverse_scale=jnp.asarray(1.0 / np.where(constant, 1.0, deviation), jnp.float32),
    )


def normalise(normaliser: Normaliser, rows: jax.Array, clip: float) -> jax.Array:
    """Standardised rows f32[..., F], clipped to +-`clip` deviations."""
    mean, inverse_scale = (
        jnp.expand_dims(leaf, tuple(range(rows.ndim - 1)))
        for leaf in (normaliser.mean, normaliser.inverse_scale)
    )
    return jnp.clip((rows - mean) * inverse_scale, -clip, clip)


def account_bounds(num_assets: int) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest value of each account feature, two f32[3A + 3]."""
    _, low, high = _account_scale(num_assets)
    return low, high


def account_features(vector: jax.Array) -> jax.Array:
    """The account as a network sees it: `ledger.account_vector` f32[3A + 3], scaled and clipped.

    Clipping makes a short training episode and a long live run look the same.
    """
    scale, low, high = _account_scale((vector.shape[0] - len(_ACCOUNT_SCALARS)) // 3)
    return jnp.minimum(jnp.maximum(vector, low / scale), high / scale) * scale


_ACCOUNT_PER_ASSET = ((1.0, -3.0, 3.0), (10.0, -2.0, 2.0), (0.01, 0.0, 1.0))
_ACCOUNT_SCALARS = ((5.0, 0.0, 1.5), (20.0, -2.0, 2.0), (20.0, -2.0, 2.0))


def _account_scale(num_assets: int) -> tuple[np.ndarray, ...]:
    """Scale, low and high of each account feature, three f32[3A + 3]."""
    rows = [row for row in _ACCOUNT_PER_ASSET for _ in range(num_assets)]
    return tuple(np.asarray([*rows, *_ACCOUNT_SCALARS], np.float32).T)


def _indicators(spec: FeatureSpec) -> tuple[Indicator, ...]:
    """What the names of a specification mean, in their order."""
    return tuple(_indicator(name, spec.bar_seconds) for name in spec.names)


def _indicator(name: str, bar_seconds: int) -> Indicator:
    """What a name means on bars of that length; without a frame their length is all one."""
    base, frame_seconds = split_name(name)
    if base not in INDICATORS:
        raise JaxtradeError(
            f"unknown feature {name!r}: there are {', '.join(INDICATORS)}, each also on a slower "
            f"frame (like rsi@1h), and {SPREAD_SWITCH}, {CONTEXT_SWITCH}"
        )
    if not frame_seconds:
        return INDICATORS[base]
    try:
        return at_frame(INDICATORS[base], frame_seconds, bar_seconds)
    except JaxtradeError as error:
        raise JaxtradeError(f"feature {name!r}: {error}") from error
