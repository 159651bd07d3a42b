"""How many rows a program is compiled for.

A program that goes from row to row is compiled anew for each number of them, which takes longer
than some thousand rows more, and rows behind the last one change none before. So such programs
work on a length that many markets have in common, and what is behind the last row is cut off.
"""

LEAST_ROWS = 2048
"""Up to here there is one length for all."""

SHARE_BITS = 3
"""Beyond, a length is longer than it need be by less than one part in 2 ** SHARE_BITS."""


def common_length(num_rows: int) -> int:
    """The length to compile for where `num_rows` rows, 1 or more, are wanted."""
    step = max(LEAST_ROWS, (1 << num_rows.bit_length()) >> (1 + SHARE_BITS))
    return -(-num_rows // step) * step
