"""An exported policy, bar by bar, without JAX.

The bundle's graph maps a bar and the carry (the indicators' recursions, the window of feature
rows, the network's memory) to a decision and the next carry. The carry stays in two sets of buffers
that onnxruntime reads and writes in turn, so that a decision copies the numbers of one bar and no
more. What is refused, be it an input or a result, leaves the carry as it was.
"""

import base64
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

from jaxtrade.live.buffers import F32, Buffers, Numbers
from jaxtrade.specs import BundleMetadata, JaxtradeError
from jaxtrade.storage import read_bytes

METADATA_KEY = "jaxtrade"
EXPLAIN_KEY = "jaxtrade_explain"
FAST_KEY, GOLDEN_KEY = "jaxtrade_fast", "jaxtrade_golden"
"""Where an ONNX file keeps the metadata, as JSON, and the explaining graph, as Base64; the graph
that decides as it is run here, see `inplace`, and some inputs with its answers when it was
exported, see `golden`: older files have neither.
"""


class Decision(NamedTuple):
    """What `decision.Decision` holds, as arrays of one's own and plain numbers.

    action: an int where it is the index of one asset's level, else an array; see `ActionSpec`.
    """

    requested: F32
    target: F32
    binding: int
    action: int | Numbers
    probabilities: F32
    spread: F32
    value: float
    confidence: float


class Carry(NamedTuple):
    """All that a policy remembers: bars seen, indicators f32[K, A], window f32[W, A * F], hidden
    f32[H], the network's memory.
    """

    bars_seen: int
    indicators: F32
    window: F32
    hidden: F32


class OnnxPolicy:
    """A bundle that decides.

    Inputs are f32 arrays, see `decision.Inputs`: bar [A, 5], context [C], clock [3], mask [A],
    account [3A + 3], limits [5]. An object belongs to one thread.

    Usage:
        policy = OnnxPolicy("policy.onnx")
        decision = policy.decide(bar, context, clock, mask, account, limits)
        if policy.is_warm:
            trade(decision.target)
    """

    def __init__(self, bundle: Path | str | bytes, *, threads: int = 1) -> None:
        """Load a bundle from a file or from its bytes.

        Raises:
            JaxtradeError: no ONNX file, no bundle, or one of another format or feature schema.
        """
        name = "the bundle" if isinstance(bundle, bytes) else str(bundle)
        content = bundle if isinstance(bundle, bytes) else read_bytes(bundle)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._session = _session(content, threads, name)
        texts = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in texts or EXPLAIN_KEY not in texts:
            raise JaxtradeError(f"{name}: is an ONNX file, but not the bundle of a policy")
        try:
            self.metadata = BundleMetadata.from_json(texts[METADATA_KEY])
            explaining = base64.b64decode(texts[EXPLAIN_KEY], validate=True)
            fast = base64.b64decode(texts.get(FAST_KEY, ""), validate=True)
        except ValueError as error:
            raise JaxtradeError(f"{name}: {error}") from error
        self.golden = texts.get(GOLDEN_KEY, "")
        self._explainer = _session(explaining, threads, name)
        self._buffers = Buffers(self.metadata)
        try:
            buffers, turns = self._buffers, (0, 1)
            self._own = self._session
            self._own_decides = [buffers.bind_deciding(self._own, turn) for turn in turns]
            if fast:
                self._session = _session(fast, threads, name)
            self._decides = [buffers.bind_deciding(self._session, turn) for turn in turns]
            self._explains = [buffers.bind_explaining(self._explainer, turn) for turn in turns]
        except ValueError as error:
            raise JaxtradeError(f"{name}: its graph does not fit its metadata: {error}") from error
        self.reset()

    def reset(self) -> None:
        """Forget everything: back to before the first bar."""
        indicators, *others = self._buffers.carry(0)
        start = np.asarray(self.metadata.carry_init, np.float32).reshape(indicators.shape)
        self.restore(Carry(0, start, *map(np.zeros_like, others)))

    def forget(self) -> None:
        """Begin an episode: the network's memory is gone, what the features have seen stays.

        As in training, where an episode begins after the bars that fill its first window.
        """
        self._buffers.carry(self._turn)[2][...] = 0

    @property
    def is_warm(self) -> bool:
        """Whether it has seen enough bars for a decision to count."""
        return self.bars_seen >= self.metadata.warmup_bars

    def carry(self) -> Carry:
        """A copy of all that it remembers."""
        return Carry(self.bars_seen, *(each.copy() for each in self._buffers.carry(self._turn)))

    def restore(self, carry: Carry) -> None:
        """Go on from a carry of the same bundle.

        Raises:
            JaxtradeError: its arrays have other shapes, or numbers that are not finite.
        """
        own = self._buffers.carry(0)
        for name, mine, given in zip(Carry._fields[1:], own, carry[1:], strict=True):
            if np.shape(given) != mine.shape or not np.isfinite(given).all():
                raise JaxtradeError(f"carry: give {name} as finite numbers of shape {mine.shape}")
        for mine, given in zip(own, carry[1:], strict=True):
            mine[...] = given
        self.bars_seen = int(carry.bars_seen)
        self._turn = 0
        self._asked: int | None = None
        self._has_decided = False

    def decide(
        self, bar: F32, context: F32, clock: F32, mask: F32, account: F32, limits: F32
    ) -> Decision:
        """See one finished bar and decide at its close.

        Raises:
            JaxtradeError: an input of another shape, or not finite (a limit may be infinite), or
                a bar that leaves the carry or the target not finite. The carry is then as it was.
        """
        turn, self._asked = self._turn, None
        self._buffers.tell(turn, (bar, context, clock, mask, account, limits))
        self._asked = turn
        self._session.run_with_iobinding(self._decides[turn])
        if self._buffers.is_finite(1 - turn):
            decision = Decision(*self._buffers.read(1 - turn))
        else:  # the bundle's own graph holds where the network says nothing finite
            self._own.run_with_iobinding(self._own_decides[turn])
            decision = Decision(*self._buffers.read_own(1 - turn))
        self._buffers.keep_memory(turn)
        self._turn = 1 - turn
        self._has_decided = True
        self.bars_seen += 1
        return decision

    @property
    def inputs_hash(self) -> str:
        """Of all that the last decision was made of, the carry before it included: 32 hex digits.

        "" where what it was told was refused, or there was none yet.
        """
        return "" if self._asked is None else self._buffers.hashed(self._asked)

    def explain(self) -> dict[str, float]:
        """What each feature and each number of the account added to the last choice.

        Gradient times input of the chosen level's lead, or of the exposure requested, see
        `decision.explain`, summed up by `BundleMetadata.groups` and `account_fields`.

        Raises:
            JaxtradeError: there has been no decision since the start, a reset or a restore.
        """
        if not self._has_decided:
            raise JaxtradeError("nothing to explain: there is no decision yet")
        self._explainer.run_with_iobinding(self._explains[self._turn])
        return self._buffers.contributions()


def _session(content: bytes, threads: int, name: str) -> ort.InferenceSession:
    """A session that leaves the processor alone between calls."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_mem_reuse = False  # each value then has a place of its own: a tenth faster
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no other base
        reason = " ".join(str(error).split())[:200]
        raise JaxtradeError(f"{name}: is not an ONNX file that runs: {reason}") from error
