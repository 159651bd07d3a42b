"""Bridges to brokers: one interface (`base`), one file per broker, one conformance suite for all.

`BROKERS` names who makes a broker of its settings; what is named is imported when it is used.
"""
