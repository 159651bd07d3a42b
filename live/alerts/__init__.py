"""Alerts: what people are told and how often, delivered by a process of its own.

The engine journals events and knows nothing of this; `worker` reads the journal, `rules` says what
is told, `throttle` how often, `outbox` keeps it until `channels` have taken it.
"""
