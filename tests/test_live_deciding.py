"""Rows of bars, decisions on them, and what becomes of policies that fail."""

import dataclasses
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrade import features
from jaxtrade.agents.distributions import MultiCategorical
from jaxtrade.assemble import combine
from jaxtrade.bars import clock_row, clock_rows, relative_bar, relative_bars
from jaxtrade.live.deciding import NOT_FINITE, Decider, context_of
from jaxtrade.live.events import BarDecided, decode, encode
from jaxtrade.live.export import bundle
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.live.rows import MAX_WAITING, Rows, rows_of
from jaxtrade.live.sections import DecisionSettings
from jaxtrade.market import Market
from jaxtrade.specs import FeatureSpec, JaxtradeError, RiskLimits
from tests.bundles import (
    exported,
    fitted,
    linear_policy,
    metadata_of,
    network_policy,
    normaliser,
    of_levels,
)
from tests.live_bars import bar, market_rows
from tests.markets import random_frame

SPEC = FeatureSpec(names=("ema_10", "rsi", "time_of_day"), window=3)
LIMITS = RiskLimits()
FLAT = np.zeros(6, np.float32)
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def content():
    """Buys after a rise, sells after a fall."""
    market = np.zeros((4, 3))
    market[0] = [1, 0, -1]
    policy = linear_policy(SPEC, market, np.zeros((6, 3)), [0, 0.001, 0])
    return bundle(policy, metadata_of(policy, warmup_bars=2))


@pytest.fixture
def policy(content):
    return OnnxPolicy(content)


@pytest.fixture
def decider(policy):
    decider = Decider(policy, ("X",), limits=LIMITS)
    decider.warm([])
    return decider


def break_down(policy, answers):
    """Let one decision of a policy after the other be replaced."""
    decide, answers = policy.decide, iter(answers)
    policy.decide = lambda *told: next(answers)(decide(*told))


# The numbers of a row


def test_plain_numbers_of_a_bar_are_those_of_a_table():
    rng = np.random.default_rng(0)
    prices = 100 * np.exp(rng.normal(0, 0.1, (500, 4)))
    before = np.roll(prices[:, 3], 1)
    seconds = np.cumsum(rng.choice([60, 120, 3_600, 86_400, 864_000, 864_060], 500))
    table, clock = relative_bars(prices, before), clock_rows(seconds, bar_seconds=60)
    for t in range(500):
        np.testing.assert_array_equal(
            np.float32(relative_bar(prices[t].tolist(), before[t])), table[t]
        )
        row = clock_row(int(seconds[t]), int(seconds[t - 1]) if t else None, bar_seconds=60)
        np.testing.assert_array_equal(np.float32(row), clock[t])


def market_of(kind) -> Market:
    if kind == "minutes":
        return Market.from_frame(random_frame(300, freq="min", deviation=0.001), symbol="X")
    if kind == "context":
        frame = random_frame(300, freq="h").assign(vix=np.linspace(10, 20, 300), spread=0.01)
        return Market.from_frame(frame, symbol="X")
    frames = [random_frame(300, seed=seed).assign(rate=float(seed)) for seed in (1, 2)]
    frames[1] = frames[1].drop(index=range(50, 200, 3))
    return combine([Market.from_frame(f, symbol=s) for f, s in zip(frames, "AB", strict=True)])


def seeing(market: Market) -> OnnxPolicy:
    """A policy with opinions, that looks at the context of a market too."""
    spec, assets = dataclasses.replace(SPEC, context=market.spec.context), market.num_assets
    names = {"symbols": market.spec.symbols, "bar_seconds": market.spec.bar_seconds}
    if assets == 1:
        policy = network_policy(spec, fitted(spec, market), hidden=(8,))
        return exported(policy, warmup_bars=10, **names)

    def assess(obs, hidden):
        newest = obs.market[:, -1].sum(axis=-1)[..., None]
        outputs = newest * jnp.asarray([1.0, 0.0, -1.0])[None, None]
        return outputs.reshape(-1, 3 * assets), newest[:, 0, 0], hidden

    policy = dataclasses.replace(
        of_levels(spec, fitted(spec, market), assess), head=MultiCategorical((3,) * assets)
    )
    return exported(policy, warmup_bars=10, **names)


@pytest.mark.parametrize("kind", ["context", "two assets"])
def test_rows_of_bars_are_what_a_replay_tells_the_policy(kind):
    market = market_of(kind)
    policy, names = seeing(market), tuple(f"{each}.L" for each in market.spec.symbols)
    told = OnnxPolicy.decide
    decider, account = Decider(policy, names, limits=LIMITS), np.zeros(3 * len(names) + 3)
    account = account.astype(np.float32)
    context = features.context_rows(policy.metadata.features, market)
    bars = np.concatenate([market.bars, market.volume[..., None]], axis=-1)
    limits, mask = np.float32(LIMITS.hard_vector()), np.ones(len(names), np.float32)
    targets = set()
    policy.reset()
    beside = [
        (told(policy, bars[t], context[t], market.clock[t], mask, account, limits), policy.carry())
        for t in range(market.num_bars)
    ]
    policy.reset()
    for row, (decision, carry) in zip(market_rows(market), beside, strict=True):
        made = decider.decide(row, account)
        mine = policy.carry()
        np.testing.assert_array_equal(mine.window, carry.window)
        np.testing.assert_array_equal(mine.indicators, carry.indicators)
        assert made.requested == tuple(decision.requested.tolist())
        if not made.held:
            assert made.target == tuple(decision.target.tolist())
            targets.add(made.target)
    assert len(targets) > 2


def test_context_by_name_or_by_symbol_and_name():
    row = (
        bar(symbol="SPY.US", context=(("vix", 15.0), ("rate", 1.0))),
        bar(symbol="QQQ.US", context=(("rate", 2.0),)),
    )
    names = ("qqq_rate", "vix", "spy_rate", "rate")
    assert context_of(row, names, ("SPY", "QQQ")) == [2.0, 15.0, 1.0, 1.0]
    with pytest.raises(JaxtradeError, match=r"needs the column 'yield'; .* have: vix, rate, rate"):
        context_of(row, ("yield",), ("SPY", "QQQ"))


# Rows


def test_a_row_is_complete_with_the_last_bar_and_comes_once():
    rows = Rows(("A", "B"), bar_seconds=60)
    a, b = bar(symbol="A"), bar(symbol="B")
    assert rows.due_ns is None
    assert rows.add(b, steady_ns=7) is None
    assert rows.due_ns == 5 * SECOND + 7
    assert rows.add(a, steady_ns=9) == (a, b)
    assert rows.due_ns is None
    assert rows.add(a, steady_ns=10) is None
    assert rows.refused == {"not after the last row": 1}
    rows.begin_after(120)
    assert rows.add(bar(120, symbol="A"), steady_ns=11) is None
    assert rows.refused == {"not after the last row": 2}


def test_a_missing_bar_is_waited_for_then_there_is_no_row():
    rows = Rows(("A", "B"), bar_seconds=60, patience_ns=100)
    rows.add(bar(0, symbol="A"), steady_ns=0)
    rows.add(bar(60, symbol="B"), steady_ns=60)
    assert rows.expire(99) == ()
    assert rows.expire(100) == (0,)
    assert rows.due_ns == 160
    late = rows.add(bar(0, symbol="B"), steady_ns=120)
    assert late is None
    # the row of 60 completes: what is older has no chance any more
    assert rows.add(bar(60, symbol="A"), steady_ns=130)[0].start_s == 60
    assert (rows.due_ns, rows.dropped) == (None, 2)


def test_rows_that_never_complete_do_not_pile_up():
    rows = Rows(("A", "B"), bar_seconds=60)
    for minute in range(MAX_WAITING + 10):
        rows.add(bar(60 * minute, symbol="A"), steady_ns=0)
    assert rows.dropped == 10
    assert rows.add(bar(0, symbol="B"), steady_ns=0) is None
    assert rows.add(bar(600 + 660, symbol="B"), steady_ns=0) is not None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"symbol": "Y"}, "another symbol"),
        ({"seconds": 300}, "another length"),
        ({"low": 0.0}, "not sound"),
        ({"open": -1.0, "low": -2.0}, "not sound"),
        ({"close": math.nan}, "not sound"),
        ({"high": math.inf}, "not sound"),
        ({"high": 99.0}, "not sound"),
        ({"low": 101.0}, "not sound"),
        ({"volume": -1.0}, "not sound"),
        ({"volume": math.nan}, "not sound"),
        ({"context": (("vix", math.nan),)}, "not sound"),
    ],
)
def test_what_is_no_bar_is_refused(changes, reason):
    rows = Rows(("X",), bar_seconds=60)
    assert rows.add(bar(**changes), steady_ns=0) is None
    assert rows.refused == {reason: 1}
    rounded = bar(60, 100.0, high=100.0 * (1 - 1e-12))
    assert rows.add(rounded, steady_ns=0) == (rounded,)


def test_rows_of_histories_are_the_stamps_they_share():
    first = [bar(60 * n, symbol="A") for n in (3, 1, 2)]
    second = [bar(60 * n, symbol="B") for n in (2, 3, 4)] + [bar(60, -1.0, symbol="B")]
    rows = rows_of([first, second])
    assert [[each.start_s for each in row] for row in rows] == [[120] * 2, [180] * 2]
    assert [each.symbol for each in rows[0]] == ["A", "B"]
    assert rows_of([]) == []


# Decisions


def test_a_decision_in_plain_numbers_fits_the_journal(decider):
    decider.see([(bar(0, 100.0),), (bar(60, 100.0),)])
    made = decider.decide((bar(120, 101.0),), FLAT)
    assert (made.start_s, made.closes, made.held, made.failures) == (120, (101.0,), "", 0)
    assert (made.requested, made.target, made.action) == ((1.0,), (1.0,), (2.0,))
    assert (made.value, made.binding) == (7.0, 0)
    assert sum(made.probabilities) == pytest.approx(1, abs=1e-6)
    assert made.confidence == max(made.probabilities)
    assert 0 < made.duration_ns < SECOND
    others = {"agent": "a", "model": "v1", "equity": 1.0, "reward": 0.0, "verdict": "traded"}
    others["symbols"] = ("X",)
    names = {field.name for field in dataclasses.fields(BarDecided)} - others.keys() - {"at_ns"}
    facts = {name: getattr(made, name) for name in names}
    event = BarDecided(at_ns=1, **others, **facts)
    assert decode("BarDecided", encode(event)) == event


def test_the_hash_is_of_all_that_the_graph_is_told(decider):
    def hashed(close=101.0, *, before=100.0, account=FLAT, limits=LIMITS, mask=None):
        decider.warm([(bar(0, 100.0),), (bar(60, before),)])
        decider.set_limits(limits)
        return decider.decide((bar(120, close),), account, mask=mask).inputs_hash

    first = hashed()
    assert (len(first), hashed()) == (32, first)
    others = [
        hashed(101.5),
        hashed(before=100.5),
        hashed(account=np.float32([0, 0, 0, 0, 0, 1e-3])),
        hashed(limits=RiskLimits(max_exposure=0.5)),
        hashed(mask=np.zeros(1, np.float32)),
    ]
    assert len({first, *others}) == 6


def test_before_it_is_warm_the_position_stays(decider):
    held = np.float32([0.3, 0, 0, 0, 0, 0])
    first = decider.decide((bar(0, 100.0),), held)
    assert (first.target, first.held) == ((np.float32(0.3),), "warming up: 1 of 2 bars")
    assert decider.decide((bar(60, 101.0),), held).target == (1.0,)


def test_limits_and_mask_hold_from_the_next_decision_on(decider):
    decider.warm([(bar(0, 100.0),), (bar(60, 100.0),)])
    assert decider.decide((bar(120, 101.0),), FLAT).target == (1.0,)
    decider.set_limits(RiskLimits(max_exposure=0.25))
    made = decider.decide((bar(180, 102.0),), FLAT)
    assert (made.requested, made.target, made.binding) == ((1.0,), (0.25,), 2)
    closed = decider.decide((bar(240, 103.0),), FLAT, mask=np.zeros(1, np.float32))
    assert closed.target == (0.0,)


def test_symbols_fit_the_policy(policy):
    with pytest.raises(JaxtradeError, match=r"A, B: the policy of 'ppo' trades 1 .X.: give"):
        Decider(policy, ("A", "B"), limits=LIMITS)


# Policies that fail


def nan_target(decision):
    return decision._replace(requested=np.float32([np.nan]))


def nan_value(decision):
    return decision._replace(value=math.nan)


def wrong_shape(decision):
    return decision._replace(target=np.float32([0.5, 0.5]))


def raising(decision):
    raise RuntimeError("a session\nof two lines")


def whole(decision):
    return decision


@pytest.mark.parametrize("fault", [nan_target, nan_value, wrong_shape, raising])
def test_what_fails_is_held_and_three_in_a_row_are_broken(policy, fault):
    break_down(policy, [whole, fault, fault, whole, fault, fault, fault])
    decider = Decider(policy, ("X",), limits=LIMITS)
    policy.bars_seen = 2
    held = np.float32([0.3, 0, 0, 0, 0, 0])
    made = [decider.decide((bar(60 * t, 100.0 + t),), held) for t in range(7)]
    assert [each.failures for each in made] == [0, 1, 2, 0, 1, 2, 3]
    most = DecisionSettings().max_failures
    assert [each.failures >= most for each in made] == [False] * 6 + [True]
    for each in made:
        if each.failures:
            assert each.requested == each.target == (np.float32(0.3),)
            assert (each.action, each.probabilities, each.binding) == ((), (), NOT_FINITE)
            assert each.held.startswith("the policy ")
            assert "\n" not in each.held
        else:
            assert each.held == ""
        json.dumps(dataclasses.asdict(each), allow_nan=False)


def test_a_network_without_a_number_is_a_failure():
    def assess(obs, hidden):
        held = obs.account[:, :1]
        return jnp.concatenate([held, jnp.log(held), 3 * held], axis=1), held[:, 0], hidden

    policy = exported(of_levels(SPEC, normaliser(SPEC), assess), warmup_bars=0)
    decider = Decider(policy, ("X",), limits=LIMITS)
    held = [np.float32([exposure, 0, 0, 0, 0, 0]) for exposure in (0.5, -0.5, 0.5, -0.5)]
    made = [decider.decide((bar(60 * t),), held[t]) for t in range(4)]
    assert [each.failures for each in made] == [0, 1, 0, 1]
    assert [each.target for each in made] == [(1.0,), (-0.5,), (1.0,), (-0.5,)]


def test_a_slow_decision_is_held_though_its_bar_was_seen(policy):
    policy.bars_seen = 2
    moments = iter([0, 5 * SECOND, 5 * SECOND, 5 * SECOND + 1])
    decider = Decider(policy, ("X",), limits=LIMITS, timer=lambda: next(moments))
    made = decider.decide((bar(0, 100.0),), FLAT)
    assert (made.held, made.failures, made.target) == ("the policy took 5.0 s", 1, (0.0,))
    assert policy.bars_seen == 3
    made = decider.decide((bar(60, 101.0),), FLAT)
    assert (made.held, made.failures, made.target, made.duration_ns) == ("", 0, (1.0,), 1)


def test_a_row_that_is_refused_is_as_if_it_had_never_been(policy, content):
    decider = Decider(policy, ("X",), limits=LIMITS)
    decider.warm([(bar(0, 100.0),), (bar(60, 101.0),)])
    before = decider.to_bytes()
    made = decider.decide((bar(120, 102.0),), np.float32([np.nan] * 6))
    assert made.held.startswith("the policy failed: JaxtradeError: account is")
    assert made.inputs_hash == ""
    assert decider.to_bytes() == before
    decider.decide((bar(180, 103.0),), FLAT)
    twin = Decider(OnnxPolicy(content), ("X",), limits=LIMITS)
    twin.warm([(bar(0, 100.0),), (bar(60, 101.0),), (bar(180, 103.0),)])
    assert decider.to_bytes() == twin.to_bytes()


# Memory


def test_history_is_seen_once_and_an_episode_begins(decider):
    history = [(bar(60 * t, 100.0 + t),) for t in range(5)]
    assert decider.warm(history) == 5
    assert decider.policy.bars_seen == 5
    assert decider.see(history) == 0
    assert decider.see([*history, (bar(300, 99.0),)]) == 1
    assert decider.last_start_s == 300
    assert decider.warm(history[:2]) == 2


def test_a_carry_as_bytes_goes_on_as_if_nothing_had_happened(policy, content):
    market = market_of("minutes")
    rows, decider = market_rows(market)[:60], Decider(policy, ("X",), limits=LIMITS)
    decider.warm(rows[:30])
    blob = decider.to_bytes()
    wanted = [decider.decide(row, FLAT) for row in rows[30:]]
    other = Decider(OnnxPolicy(content), ("X",), limits=LIMITS)
    other.from_bytes(blob)
    assert other.last_start_s == rows[29][0].start_s
    assert other.to_bytes() == blob
    got = [other.decide(row, FLAT) for row in rows[30:]]
    assert [dataclasses.replace(each, duration_ns=0) for each in got] == [
        dataclasses.replace(each, duration_ns=0) for each in wanted
    ]


def test_damaged_and_foreign_carries_are_refused(decider):
    decider.warm([(bar(0, 100.0),)])
    blob = decider.to_bytes()
    damaged = [b"", blob[:40], blob[:-4], blob + b"1234"]
    damaged += [blob[:n] + bytes([blob[n] ^ 1]) + blob[n + 1 :] for n in range(0, len(blob), 7)]
    for each in damaged:
        with pytest.raises(JaxtradeError, match="carry: is damaged"):
            decider.from_bytes(each)
    assert decider.to_bytes() == blob
    other = exported(network_policy(SPEC, normaliser(SPEC), hidden=(4,)))
    with pytest.raises(JaxtradeError, match="carry: is of the bundle"):
        Decider(other, ("X",), limits=LIMITS).from_bytes(blob)
