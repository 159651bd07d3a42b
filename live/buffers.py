"""The memory between a policy and onnxruntime, which reads and writes it in place."""

import hashlib
import itertools
import math
import re
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from jaxtrade.specs import BINDING_FLAGS, CLOCK_FIELDS, HARD_LIMITS, BundleMetadata, JaxtradeError

F32 = NDArray[np.float32]
Numbers = NDArray[np.float32] | NDArray[np.int32]
Said = tuple[F32, F32, int, int | Numbers, F32, F32, float, float]
"""What `Decision` holds, in its order."""

Told = tuple[F32, F32, F32, F32, F32, F32]
"""Bar, context, clock, mask, account, limits: see `decision.Inputs`."""

KEPT = "kept"
NUM_KEPT = BINDING_FLAGS.index("cooldown")
"""Whether limits are kept, instead of the bits that bind: those that need no memory, the first of
the flags. The very first, that all is finite, is not written: a set where it is not is refused.
"""

_F32 = np.dtype(np.float32)


class Buffers:
    """Two sets of everything, used in turn: a decision reads what it is told and the carry from one
    set and writes carry and results into the other, so a decision that is refused spoils nothing.

    What is to be finite lies side by side: of what is told, all but the limits; of what is written,
    window (its last row is the new one), indicators, hidden, target and requested, then the other
    outputs.
    """

    def __init__(self, metadata: BundleMetadata) -> None:
        assets = len(metadata.symbols)
        width, spec = assets * len(metadata.columns), metadata.actions
        size = spec.size(assets)
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
            "hidden": (metadata.hidden_size,),
            "target": (assets,),
            "requested": (assets,),
            "probabilities": (assets * len(spec.numbers) if spec.is_discrete else 0,),
            **({} if spec.is_discrete else {"spread": (size,), "action": (size,)}),
            "value": (1,),
            "confidence": (1,),
        }
        self._written, blocks = zip(*(_block(**written) for _ in (0, 1)), strict=True)
        start = (metadata.features.window - 1) * width
        results = sum(math.prod(written[name]) for name in ("window", "indicators", "hidden"))
        self._new = [block[start : results + 2 * assets] for block in blocks]
        self._results = [block[results:] for block in blocks]
        self._carries = [memoryview(block[:results]).cast("B") for block in blocks]
        self._fact_is_finite = np.ones(len(self._facts[0]), np.bool_)
        self._new_is_finite = np.ones(len(self._new[0]), np.bool_)
        self._all_facts = self._fact_is_finite.tobytes()
        self._all_new = self._new_is_finite.tobytes()
        self._binding, self._kept = np.zeros(1, np.int32), np.zeros(0, np.bool_)
        self._bits: dict[bytes, int] = {}  # what `binding` is where these are `kept`
        kinds = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}
        self._indices = {kind: np.zeros(assets, number) for kind, number in kinds.items()}
        self._index: NDArray[Any] = self._indices["tensor(int32)"]
        self._num_assets, self._is_discrete = assets, spec.is_discrete
        self._before = np.zeros(metadata.hidden_size, np.float32)
        self._contributions = np.zeros(width + len(metadata.account_fields), np.float32)
        each = (*metadata.groups * assets, *metadata.account_fields)
        self._groups = tuple(dict.fromkeys(each))
        self._members = np.asarray([[g == one for one in each] for g in self._groups], np.float32)

    def bind_deciding(self, session: ort.InferenceSession, turn: int) -> ort.IOBinding:
        """The binding of a session that decides on set `turn` and writes the other one.

        Raises:
            ValueError: the session has other inputs or outputs than there are buffers for.
        """
        read, written = self._written[turn], self._written[1 - turn]
        carry = ("indicators", "window", "hidden")
        sources = {**self._told[turn], **{name: read[name] for name in carry}}
        targets: dict[str, Any] = {"binding": self._binding}
        targets |= {f"next_{name}" if name in carry else name: x for name, x in written.items()}
        nodes = {node.name: node.type for node in session.get_outputs()}
        if self._is_discrete:
            targets["action"] = self._index = self._indices[nodes.get("action", "tensor(int32)")]
        if "binding" in nodes:
            return _bound(session, sources, targets)
        self._count_kept()
        del targets["binding"]
        return _bound(session, sources, {**targets, KEPT: self._kept}, needs_all=False)

    def bind_explaining(self, session: ort.InferenceSession, turn: int) -> ort.IOBinding:
        """The binding of a session that explains the decision whose carry is in set `turn`.

        Raises:
            ValueError: as above.
        """
        sources = {
            "window": self._written[turn]["window"],
            "account": self._told[1 - turn]["account"],
            "hidden_before": self._before,
        }
        return _bound(session, sources, {"contributions": self._contributions})

    def _count_kept(self) -> None:
        """Be told which limits are kept, instead of the bits of those that bind."""
        if not self._bits:
            self._kept = np.ones(NUM_KEPT, np.bool_)
            for state in itertools.product((False, True), repeat=NUM_KEPT):
                bits = sum(1 << bit for bit, is_kept in enumerate(state) if not is_kept)
                self._bits[bytes(state)] = bits

    def carry(self, turn: int) -> tuple[F32, F32, F32]:
        """Indicators, window and the network's memory of a set."""
        written = self._written[turn]
        return written["indicators"], written["window"], written["hidden"]

    def keep_memory(self, turn: int) -> None:
        """Keep the memory that the last decision began with, for explaining it."""
        if self._before.size:
            self._before[...] = self._written[turn]["hidden"]

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

    def hashed(self, turn: int) -> str:
        """What a set was told and its carry, as 32 hex digits."""
        digest = hashlib.blake2b(self._bytes[turn], digest_size=16)
        digest.update(self._carries[turn])
        return digest.hexdigest()

    def is_finite(self, turn: int) -> bool:
        """Whether carry, target and what is requested, as written into a set, are finite."""
        np.isfinite(self._new[turn], self._new_is_finite)
        return self._new_is_finite.tobytes() == self._all_new

    def read_own(self, turn: int) -> Said:
        """The same as `read` of the bundle's own graph, where the carry and the target are finite.

        Raises:
            JaxtradeError: they are not.
        """
        np.isfinite(self._new[turn], self._new_is_finite)
        if not self._new_is_finite[: -self._num_assets].all():
            bar = self._told[1 - turn]["bar"].tolist()
            raise JaxtradeError(f"bar {bar} makes the carry or the target not finite")
        return self._read(turn, self._binding.item(), self._indices["tensor(int32)"])

    def read(self, turn: int) -> Said:
        """The numbers of the decision written into a set, in the order of `Decision`."""
        bits = self._bits
        binding = bits[self._kept.tobytes()] if bits else self._binding.item()
        return self._read(turn, binding, self._index)

    def _read(self, turn: int, binding: int, found: NDArray[Any]) -> Said:
        assets, floats = self._num_assets, self._results[turn].copy()
        requested, target = floats[assets : 2 * assets], floats[:assets]
        value, confidence = floats[-2:].tolist()
        certain, none = floats[2 * assets : -2], floats[:0]
        if not self._is_discrete:
            spread, action = np.split(certain, 2)
            return requested, target, binding, action, none, spread, value, confidence
        index = found.item() if assets == 1 else found.astype(np.int32)
        return requested, target, binding, index, certain, none, value, confidence

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


PART = re.compile(r"(\w+)\[(\d+):(\d+)\]'*")
"""The name of a part, from one of its numbers to before another; ' tells apart other shapes."""


def _part(name: str) -> tuple[str, int, int]:
    """What a name says: of which array it is a part, from where to where."""
    known = PART.fullmatch(name)
    return (known[1], int(known[2]), int(known[3])) if known else ("", 0, 0)


def _bound(
    session: ort.InferenceSession,
    sources: dict[str, Any],
    targets: dict[str, Any],
    *,
    needs_all: bool = True,
) -> ort.IOBinding:
    """A binding of just these arrays, but for those without a number; with `needs_all` each of
    them is an input or output of its own, else an input may be left out.

    Raises:
        ValueError: the session has others.
    """
    binding = session.io_binding()
    for arrays, nodes, bind in (
        (sources, session.get_inputs(), binding.bind_ortvalue_input),
        (targets, session.get_outputs(), binding.bind_ortvalue_output),
    ):
        left = {name: array.size for name, array in arrays.items()}
        if KEPT in left and f"{KEPT}[0:1]" not in {node.name for node in nodes}:
            left[KEPT] -= 1
        for node in nodes:
            name, first, last = _part(node.name)
            array = (
                arrays[name].reshape(-1)[first:last] if name in arrays else arrays.get(node.name)
            )
            bind(node.name, _shared(node, array))
            left[name or node.name] -= math.prod(node.shape)
        missing = [name for name, size in left.items() if size]
        if missing and (needs_all or arrays is targets):
            raise ValueError(f"no {', '.join(sorted(missing))}")
    return binding


_KINDS = {
    np.dtype(kind): f"tensor({name})"
    for kind, name in (
        (np.float32, "float"),
        (np.int32, "int32"),
        (np.int64, "int64"),
        (np.bool_, "bool"),
    )
}


def _shared(node: Any, array: NDArray[Any] | None) -> ort.OrtValue:
    """The buffer of an input or output as onnxruntime's: the same memory."""
    if array is None or node.type != _KINDS[array.dtype] or array.size != math.prod(node.shape):
        raise ValueError(f"{node.name}, {node.type} of shape {node.shape}")
    return ort.OrtValue.ortvalue_from_numpy(array.reshape(node.shape))
