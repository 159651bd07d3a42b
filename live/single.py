"""`jaxtrade.sizing` of one symbol in plain numbers: the same to the last bit, and sooner.

Arrays of one number cost a dozen calls into NumPy, of which each takes longer than the sum. A sum,
difference, product or quotient of two float32 that is worked out in float64 and rounded once is the
one that float32 gives (Figueroa, 1995: 53 bits are at least twice 24 and two).
"""

import math
from ctypes import c_float

from jaxtrade.sizing import TOLERANCE

_MOST = 2.0**30


def single(number: float) -> float:
    """The nearest float32; infinite where that has none."""
    return c_float(number).value


_TOLERANCE, _MORE = single(TOLERANCE), single(1.0 + TOLERANCE)
_LEAST_LOT = single(1e-30)


def delta_order(target: float, weight: float, band: float, minimum: float) -> float:
    """The exposure to trade; see `sizing.delta_order`."""
    target, weight = single(target), single(weight)
    delta = single(target - weight)
    distance = abs(delta)
    if distance > single(band) and distance >= single(minimum):
        return delta
    return delta if target == 0 and weight != 0 else 0.0


def lots_order(target: float, lots: int, lot: float, band: float, minimum: float) -> int:
    """The whole lots to trade; see `sizing.lots_order`."""
    target, lot = single(target), single(lot)
    if target == 0:
        return -lots
    if not (abs(target) <= 1e6 and _LEAST_LOT < lot < math.inf):
        return 0
    exact = min(max(single(target / lot), -_MOST), _MOST)
    delta = _whole(exact) - lots
    distance = abs(single(exact - single(lots)))
    is_worth_it = distance > single(single(single(band) / lot) * _MORE)
    is_enough = single(single(abs(delta)) * _MORE) >= single(single(minimum) / lot)
    return delta if is_worth_it and is_enough else 0


def _whole(exact: float) -> int:
    """The nearest whole number where it is within the tolerance, else the next towards zero."""
    nearest = round(exact)
    is_near = abs(single(exact - nearest)) <= single(_TOLERANCE * max(abs(exact), 1.0))
    return nearest if is_near else math.trunc(exact)
