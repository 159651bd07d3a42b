"""Roof, production side: exported policies and all that trades with them.

One engine per account, in one thread: broker -> `engine` -> `desk` (an agent) -> `trading` -> guard
-> journal -> broker. Whatever changes is an event (`events`), journalled, then folded into `state`.

policies      export (inplace, simplify, graph, golden); policy and its buffers; deciding, rows,
              carrying, bar_builder; swap, swaps, pointer for other versions; online for a trainer
state         clock, events; orders, executions, register; positions, holdings, trades, records;
              state, state_text
journal       journal (journal_db, _tables, _files, reached), lock, recovery; reconcile beside it
money         book; planning, quantities, exits, scene; guard (guard_case, checks, exposure),
              quotes, rates; protections, limits; worth
engine        run makes it, engine deals with events; account is what its parts share: bookkeeper,
              session, execution, desk, trading, governor, house; meters, status, event_log
people        control and commanding inside; commands, starting, compose, emergency, view, folders,
              journal_status outside; settings, sections
processes     supervisor, keeper, heartbeat, notify; kill and latches; logs, redaction, recorder
brokers/      one interface, one file per broker, one conformance suite
alerts/       what people are told, delivered by a process of its own

Only `export` and the market of the paper broker import JAX. What may go wrong, what holds then and
the test of it is in RELIABILITY.md.
"""
