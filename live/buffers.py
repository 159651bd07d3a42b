"""The memory between a policy and onnxruntime, which reads and writes it in place."""

import math
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from jaxtrade.specs import CLOCK_FIELDS, LIMIT_FIELDS, BundleMetadata, JaxtradeError

F32 = NDArray[np.float32]


class Buffers:
    """Inputs, outputs and two sets of what a decision carries on; a graph reads one set and
    writes the other.

    A set is one block of floats, so ordered that what must be finite lies side by side: window
    (its last row is the new one), indicators, target, then the other outputs.
    """

    def __init__(self, metadata: BundleMetadata) -> None:
        assets = len(metadata.symbols)
        width, actions = assets * len(metadata.columns), len(metadata.levels)
        self._inputs, facts = _block(
            bar=(assets, 5),
            context=(len(metadata.features.context),),
            clock=(len(CLOCK_FIELDS),),
            mask=(assets,),
            account=(len(metadata.account_fields),),
            limits=(len(LIMIT_FIELDS),),
        )
        self._shapes = tuple(each.shape for each in self._inputs.values())
        self._bar, self._context, self._clock, *others = self._inputs.values()
        self._mask, self._account, self._limits = others
        self._facts = facts[: -len(LIMIT_FIELDS)]
        self._good_limits = b""

        carried = {
            "window": (metadata.features.window, width),
            "indicators": (len(metadata.carry_init), assets),
            "target": (assets,),
            "requested": (assets,),
            "probabilities": (actions,),
            "value": (1,),
            "confidence": (1,),
        }
        self._sets, blocks = zip(*(_block(**carried) for _ in (0, 1)), strict=True)
        start = (metadata.features.window - 1) * width
        results = len(blocks[0]) - (2 * assets + actions + 2)
        self._finite = [block[start : results + assets] for block in blocks]
        self._results = [block[results:] for block in blocks]
        self._zeros = np.zeros(max(len(self._facts), len(self._finite[0])), np.float32)
        self._no_facts = self._zeros[: len(self._facts)]
        self._nothing = self._zeros[: len(self._finite[0])]
        self._integers = np.zeros(2, np.int32)
        self._num_assets = assets

        self._contributions = np.zeros(width + len(metadata.account_fields), np.float32)
        each = (*metadata.groups * assets, *metadata.account_fields)
        self._groups = tuple(dict.fromkeys(each))
        self._members = np.asarray([[g == one for one in each] for g in self._groups], np.float32)

    def bind(self, session: ort.InferenceSession, turn: int) -> ort.IOBinding:
        """The binding of a session that reads set `turn` and writes the other.

        Raises:
            ValueError: the session has inputs or outputs that there are no buffers for.
        """
        read, written = self._sets[turn], self._sets[1 - turn]
        sources = {**self._inputs, "indicators": read["indicators"], "window": read["window"]}
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
        return self._sets[turn]["indicators"], self._sets[turn]["window"]

    def fill(
        self, bar: F32, context: F32, clock: F32, mask: F32, account: F32, limits: F32
    ) -> None:
        """Copy what is known at a decision, and refuse what is wrong."""
        try:
            shapes = bar.shape, context.shape, clock.shape, mask.shape, account.shape, limits.shape
            if shapes != self._shapes:
                raise ValueError
            self._bar[...] = bar
            self._context[...] = context
            self._clock[...] = clock
            self._mask[...] = mask
            self._account[...] = account
            self._limits[...] = limits
        except (AttributeError, TypeError, ValueError):
            raise self._wrong_kind(bar, context, clock, mask, account, limits) from None
        # 0 times what is not finite is not 0: a product takes a quarter of the time of isfinite
        if self._facts.dot(self._no_facts) != 0 or self._limits.tobytes() != self._good_limits:
            self._check()

    def read(self, turn: int) -> tuple[F32, F32, int, int, F32, float, float]:
        """The numbers of the decision written into set `turn`, in the order of `Decision`."""
        if self._finite[turn].dot(self._nothing) != 0:
            bar = self._bar.tolist()
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

    def _check(self) -> None:
        for name, own in self._inputs.items():
            if name != "limits" and not np.isfinite(own).all():
                raise JaxtradeError(f"{name} is {own.tolist()}: give finite numbers")
        if not (self._limits > 0).all():
            raise JaxtradeError(f"limits are {self._limits.tolist()}: give numbers above 0")
        self._good_limits = self._limits.tobytes()

    def _wrong_kind(self, *given: object) -> JaxtradeError:
        for (name, own), new in zip(self._inputs.items(), given, strict=True):
            if not isinstance(new, np.ndarray):
                return JaxtradeError(f"{name} is of type {type(new).__name__}: give an array")
            if new.shape != own.shape:
                return JaxtradeError(f"{name} has shape {new.shape}: give {own.shape}")
        return JaxtradeError("an input does not hold numbers: give float32 arrays")


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
