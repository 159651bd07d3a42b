"""What a policy remembers, as bytes for the journal: one block with its SHA-256 in front.

Plain numbers in a fixed order, little-endian: a tenth of the time of an archive of arrays, and
nothing in it can run when it is read.
"""

import hashlib
import struct
from typing import NamedTuple

import numpy as np

from jaxtrade.live.policy import Carry
from jaxtrade.specs import JaxtradeError

_HEAD = struct.Struct("<8s32sqqq")
_MAGIC = b"jtcarry1"
_NONE = -(2**63)


class Kept(NamedTuple):
    """A policy's carry, the start of the last row it saw (None before the first), its closes."""

    carry: Carry
    last_start: int | None
    closes: tuple[float, ...]


def pack(kept: Kept, *, sha256: str) -> bytes:
    """A carry of the bundle with that hash as bytes."""
    carry, last_start, closes = kept
    start = _NONE if last_start is None else last_start
    head = _HEAD.pack(_MAGIC, bytes.fromhex(sha256), carry.bars_seen, start, len(closes))
    arrays = [np.asarray(each, "<f4").tobytes() for each in carry[1:]]
    body = b"".join((head, np.asarray(closes, "<f8").tobytes(), *arrays))
    return hashlib.sha256(body).digest() + body


def unpack(blob: bytes, *, like: Carry, sha256: str) -> Kept:
    """What `pack` was given.

    Raises:
        JaxtradeError: the bytes are damaged, or of another bundle than that with this hash.
    """
    digest, body = blob[:32], blob[32:]
    if hashlib.sha256(body).digest() != digest or body[:8] != _MAGIC:
        raise JaxtradeError("carry: is damaged: warm the policy up from history")
    _, bundle, bars_seen, start, num_closes = _HEAD.unpack_from(body)
    if bundle.hex() != sha256:
        raise JaxtradeError(
            f"carry: is of the bundle {bundle.hex()[:12]}, not of {sha256[:12]}: "
            "warm the policy up from history"
        )
    closes = np.frombuffer(body, "<f8", num_closes, _HEAD.size)
    numbers = np.frombuffer(body, "<f4", offset=_HEAD.size + closes.nbytes)
    sizes = [each.size for each in like[1:]]
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    shaped = [part.reshape(each.shape) for part, each in zip(parts, like[1:], strict=True)]
    last_start = None if start == _NONE else start
    return Kept(Carry(bars_seen, *shaped), last_start, tuple(closes.tolist()))
