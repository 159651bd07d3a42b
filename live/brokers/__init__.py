"""Bridges to brokers: one interface (`base`), one conformance suite, and what implements them.

`making.BROKERS` names who makes a broker of its settings; what is named is imported when it is
used. `paper` and what is named after it are the broker that trades on paper.
"""
