"""The memory between a policy and onnxruntime, which reads and writes it in place."""

import math
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from jaxtrade.specs import CLOCK_FIELDS, HARD_LIMITS, BundleMetadata, JaxtradeError

F32 = NDArray[np.float32]
Told = tuple[F32, F32, F32, F32, F32, F32]
"""Bar, context, clock, mask, account, limits: see `decision.Inputs`."""

_F32 = np.dtype(np.float32)


class Buffers:
    """Two sets of everything, used in turn: a decision reads what it is told and the carry from one
    set and writes carry and results into the other, so a decision that is refused spoils nothing.

    What must be finite lies side by side: of what is told, all but the limits; of what is written,
    window (its last row is the new one), indicators and target, then the other outputs.
    """

    def __init__(self, metadata: BundleMetadata) -> None:
        assets = len(metadata.symbols)
        width, actions = assets * len(metadata.columns), len(metadata.levels)
        told = {
            "bar": (assets, 5),
            "context": (len(metadata.features.context),),
            "clock": (len(CLOCK_FIELDS),),
            "mask": (assets,),
            "account": (len(metadata.account_fields),),
            "limits": (len(HARD_LIMITS),),
        }
        self._shapes = tuple(told.values())
        self._told, blocks = zip(*(_block(**told) for _ in (0, 1)), strict=True)
        self._facts = [block[: -len(HARD_LIMITS)] for block in blocks]
        self._bytes = [memoryview(block).cast("B") for block in blocks]
        self._good_limits = b""

        written = {
            "window": (metadata.features.window, width),
            "indicators": (len(metadata.carry_init), assets),
            "target": (assets,),
            "requested": (assets,),
            "probabilities": (actions,),
            "value": (1,),
            "confidence": (1,),
        }
        self._written, blocks = zip(*(_block(**written) for _ in (0, 1)), strict=True)
        start = (metadata.features.window - 1) * width
        results = len(blocks[0]) - (2 * assets + actions + 2)
        self._new = [block[start : results + assets] for block in blocks]
        self._results = [block[results:] for block in blocks]
        self._fact_is_finite = np.ones(len(self._facts[0]), np.bool_)
        self._new_is_finite = np.ones(len(self._new[0]), np.bool_)
        self._all_facts = self._fact_is_finite.tobytes()
        self._all_new = self._new_is_finite.tobytes()
        self._integers = np.zeros(2, np.int32)
        self._num_assets = assets
        self._contributions = np.zeros(width + len(metadata.account_fields), np.float32)
        each = (*metadata.groups * assets, *metadata.account_fields)
        self._groups = tuple(dict.fromkeys(each))
        self._members = np.asarray([[g == one for one in each] for g in self._groups], np.float32)

    def bind(self, session: ort.InferenceSession, *, told: int, carry: int) -> ort.IOBinding:
        """The binding of a session that reads sets `told` and `carry` and writes the other carry.

        Raises:
            ValueError: the session has inputs or outputs that there are no buffers for.
        """
        read, written = self._written[carry], self._written[1 - carry]
        sources = {
            **self._told[told],
            "indicators": read["indicators"],
            "window": read["window"],
        }
        targets = {
            **written,
            "next_indicators": written["indicators"],
            "next_window": written["window"],
            "binding": self._integers[:1],
            "action": self._integers[1:],
            "contributions": self._contributions,
        }
        binding = session.io_binding()
        for node in session.get_inputs():
            binding.bind_ortvalue_input(node.name, _shared(node, sources))
        for node in session.get_outputs():
            binding.bind_ortvalue_output(node.name, _shared(node, targets))
        return binding

    def carry(self, turn: int) -> tuple[F32, F32]:
        """Indicators and window of a set."""
        return self._written[turn]["indicators"], self._written[turn]["window"]

    def tell(self, turn: int, given: Told) -> None:
        """Copy what is known at a decision into a set, and refuse what is wrong."""
        bar, context, clock, mask, account, limits = given
        try:
            shapes = bar.shape, context.shape, clock.shape, mask.shape, account.shape, limits.shape
            others = context.dtype == clock.dtype == mask.dtype == account.dtype == limits.dtype
            is_ready = shapes == self._shapes and others and bar.dtype == limits.dtype == _F32
        except AttributeError:
            is_ready = False
        if not is_ready:
            bar, context, clock, mask, account, limits = _converted(self._told[turn], given)
        # bytes: a third of the time of six assignments
        known = (bar.tobytes(), context.tobytes(), clock.tobytes(), mask.tobytes())
        allowed = limits.tobytes()
        self._bytes[turn][:] = b"".join((*known, account.tobytes(), allowed))
        np.isfinite(self._facts[turn], self._fact_is_finite)
        if self._fact_is_finite.tobytes() != self._all_facts or allowed != self._good_limits:
            self._check(self._told[turn])

    def read(self, turn: int) -> tuple[F32, F32, int, int, F32, float, float]:
        """The numbers of the decision written into a set, in the order of `Decision`."""
        np.isfinite(self._new[turn], self._new_is_finite)
        if self._new_is_finite.tobytes() != self._all_new:
            bar = self._told[1 - turn]["bar"].tolist()
            raise JaxtradeError(f"bar {bar} makes the carry or the target not finite")
        assets, floats = self._num_assets, self._results[turn].copy()
        requested, target = floats[assets : 2 * assets], floats[:assets]
        binding, action = self._integers.tolist()
        value, confidence = floats[-2:].tolist()
        return requested, target, binding, action, floats[2 * assets : -2], value, confidence

    def contributions(self) -> dict[str, float]:
        """What the explaining graph has written, summed up by group."""
        sums = self._members @ self._contributions
        return dict(zip(self._groups, sums.tolist(), strict=True))

    def _check(self, told: dict[str, F32]) -> None:
        for name, own in told.items():
            if name != "limits" and not np.isfinite(own).all():
                raise JaxtradeError(f"{name} is {own.tolist()}: give finite numbers")
        limits = told["limits"]
        if not (limits > 0).all():
            raise JaxtradeError(f"limits are {limits.tolist()}: give numbers above 0")
        self._good_limits = limits.tobytes()


def _converted(told: dict[str, F32], given: tuple[Any, ...]) -> Told:
    """What is given as float32 arrays.

    Raises:
        JaxtradeError: one is no array, of another shape, or not of numbers.
    """
    arrays = []
    for (name, own), new in zip(told.items(), given, strict=True):
        if not isinstance(new, np.ndarray):
            raise JaxtradeError(f"{name} is of type {type(new).__name__}: give an array")
        if new.shape != own.shape:
            raise JaxtradeError(f"{name} has shape {new.shape}: give {own.shape}")
        if new.dtype.kind not in "fiub":
            raise JaxtradeError(f"{name} is an array of {new.dtype}: give float32")
        with np.errstate(over="ignore"):  # infinity is refused like any other
            arrays.append(new.astype(np.float32))
    bar, context, clock, mask, account, limits = arrays
    return bar, context, clock, mask, account, limits


def _block(**shapes: tuple[int, ...]) -> tuple[dict[str, F32], F32]:
    """Arrays of these shapes by name, side by side in one block, and the block."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    block = np.zeros(sum(sizes), np.float32)
    parts = np.split(block, np.cumsum(sizes)[:-1])
    named = zip(shapes.items(), parts, strict=True)
    return {name: part.reshape(shape) for (name, shape), part in named}, block


def _shared(node: Any, arrays: dict[str, NDArray[Any]]) -> ort.OrtValue:
    """The buffer of an input or output as onnxruntime's: the same memory."""
    array = arrays.get(node.name)
    kind = "tensor(int32)" if array is not None and array.dtype == np.int32 else "tensor(float)"
    if array is None or node.type != kind or array.size != math.prod(node.shape):
        raise ValueError(f"{node.name}, {node.type} of shape {node.shape}")
    return ort.OrtValue.ortvalue_from_numpy(array.reshape(node.shape))
