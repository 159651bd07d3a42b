"""Another policy while trading: taken only if whole, watched, swapped between bars, taken back."""

import dataclasses
import functools
import hashlib
import json
import math
import os

import numpy as np
import onnx
import pytest

from jaxtrade.live import golden
from jaxtrade.live.export import bundle
from jaxtrade.live.pointer import KEPT_BUNDLES, Bundle, Pointer, Shelf
from jaxtrade.live.policy import GOLDEN_KEY, OnnxPolicy
from jaxtrade.live.sections import DecisionSettings
from jaxtrade.live.settings import AgentSettings
from jaxtrade.live.swap import RECENT_ROWS, ModelSlot, prepare
from jaxtrade.registry import Registry
from jaxtrade.specs import FeatureSpec, JaxtradeError
from jaxtrade.storage import read_bytes
from tests.bundles import linear_policy, metadata_of
from tests.live_bars import bar

SPEC = FeatureSpec(names=("ema_10",), window=2)
AGENT = AgentSettings(name="main", model="m", symbols=("X",))
FLAT = np.zeros(6, np.float32)


@functools.cache
def content(kind: str) -> bytes:
    """Bundles of a policy that always wants the same, `long` or `short`."""
    bias = [0.0, 0.0, 5.0] if kind == "long" else [5.0, 0.0, 0.0]
    columns = 1
    policy = linear_policy(SPEC, np.zeros((columns, 3)), np.zeros((6, 3)), bias)
    return bundle(policy, metadata_of(policy, warmup_bars=3))


def changed(data: bytes, key: str, value: str | None) -> bytes:
    model = onnx.load_from_string(data)
    texts = {item.key: item.value for item in model.metadata_props} | {key: value or ""}
    if value is None:
        del texts[key]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, texts)
    return model.SerializeToString()


def packed(data: bytes, name: str = "v2") -> Bundle:
    return Bundle(name=name, sha256=OnnxPolicy(data).sha256, content=data)


def rows(first: int, last: int):
    return [(bar(60 * t, 100.0 + t % 3),) for t in range(first, last)]


def seat(kind: str, name: str, *, history: int = 5):
    made = prepare(packed(content(kind), name), AGENT, DecisionSettings())
    made.decider.warm(rows(0, history))
    return made


@pytest.fixture
def slot():
    return ModelSlot(seat("long", "v1"), shadow_bars=3)


def play(slot, first, last):
    """Rows as an engine deals with them: swaps, targets and what the candidate wanted."""
    log = []
    for row in rows(first, last):
        swapped = slot.turn()
        made = slot.decide(row, FLAT)
        followed = slot.follow(row, FLAT)
        log.append((swapped and swapped.name, made.target[0], followed and followed.made.target[0]))
    return log


# Golden answers


def test_a_bundle_answers_what_it_answered():
    policy = OnnxPolicy(content("long"))
    policy.decide(*golden.random_inputs(np.random.default_rng(5), policy.metadata))
    assert golden.check(policy) == golden.NUM_BARS
    assert policy.bars_seen == 0
    tree = json.loads(policy.golden)
    assert {len(tree["told"]), len(tree["decided"])} == {golden.NUM_BARS}
    assert tree["decided"][0]["requested"] == [1.0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("requested", [0.0]), ("value", 7.01), ("row", [3.0]), ("indicators", 0.1), ("confidence", 0)],
)
def test_another_answer_is_refused(name, value):
    tree = json.loads(OnnxPolicy(content("long")).golden)
    tree["decided"][3][name] = value
    policy = OnnxPolicy(changed(content("long"), GOLDEN_KEY, json.dumps(tree)))
    with pytest.raises(JaxtradeError, match=f"the bundle answers {name} .* where it was exported"):
        golden.check(policy)


@pytest.mark.parametrize("text", ["{", "{}", '{"told": [[1]], "decided": [{}]}', "[1]"])
def test_golden_answers_that_cannot_be_read(text):
    policy = OnnxPolicy(changed(content("long"), GOLDEN_KEY, text))
    with pytest.raises(JaxtradeError, match="golden answers cannot be read"):
        golden.check(policy)


def test_an_older_bundle_decides_but_is_not_swapped_in():
    older = changed(content("long"), GOLDEN_KEY, None)
    assert golden.check(OnnxPolicy(older)) == 0
    with pytest.raises(JaxtradeError, match=r"^v2: has no golden answers: export the policy again"):
        prepare(packed(older), AGENT, DecisionSettings())


# Preparing


def test_what_does_not_fit_is_refused():
    like = OnnxPolicy(content("long")).metadata
    ready = prepare(packed(content("short")), AGENT, DecisionSettings(), like=like)
    assert ready.sha256 == packed(content("short")).sha256
    for name, value in (("symbols", ("Y",)), ("bar_seconds", 3_600)):
        other = dataclasses.replace(like, **{name: value})
        with pytest.raises(JaxtradeError, match=f"^v2: {name} is .*: the policy that trades has"):
            prepare(packed(content("short")), AGENT, DecisionSettings(), like=other)


@pytest.mark.parametrize("length", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(length):
    whole = content("short")
    cut = whole[: round(length * len(whole)) if length < 1 else length]
    with pytest.raises(JaxtradeError, match=r"^v2: "):
        prepare(Bundle(name="v2", sha256="0" * 64, content=cut), AGENT, DecisionSettings())


# Swapping


def test_a_candidate_follows_then_takes_over_between_bars(slot):
    assert play(slot, 5, 7) == [(None, 1.0, None)] * 2
    slot.offer(seat("short", "v2"))  # warmed with five bars; two came since
    assert slot.candidate.decider.last_start_s == 360
    assert play(slot, 7, 12) == [
        (None, 1.0, -1.0),
        (None, 1.0, -1.0),
        (None, 1.0, -1.0),
        ("v2", -1.0, None),
        (None, -1.0, None),
    ]
    assert (slot.active.name, slot.previous.name, slot.candidate) == ("v2", "v1", None)


def test_a_candidate_that_is_cold_follows_until_it_is_warm(slot):
    slot.offer(seat("short", "v2", history=0))
    names = [swapped for swapped, *_ in play(slot, 5, 11)]
    assert names == [None, None, None, "v2", None, None]
    cold = ModelSlot(seat("long", "v1"), shadow_bars=0)
    cold.offer(seat("short", "v2", history=0))
    assert [swapped for swapped, *_ in play(cold, 5, 9)] == [None, None, None, "v2"]


def test_a_rollback_is_instant_and_the_bundle_is_not_wanted_again(slot):
    slot.offer(seat("short", "v2"))
    play(slot, 5, 10)
    newer = slot.active.sha256
    assert slot.active.name == "v2"
    slot.rollback("by hand")
    swapped = slot.turn()
    assert swapped == ("v1", slot.active.sha256, "rolled back: by hand")
    made = slot.decide(rows(10, 11)[0], FLAT)
    assert (made.target, made.held) == ((1.0,), "")  # it had gone on seeing bars
    twin = seat("long", "v1", history=11)
    assert slot.active.decider.policy.bars_seen == twin.decider.policy.bars_seen
    np.testing.assert_array_equal(
        slot.active.decider.policy.carry().window, twin.decider.policy.carry().window
    )
    assert not slot.wants(newer)
    assert not slot.wants(slot.active.sha256)
    assert slot.wants("f" * 64)
    with pytest.raises(JaxtradeError, match="cannot roll back: v1 is the first policy here"):
        slot.rollback("again")


def fail_after(policy, count):
    """Let a policy say what is not finite from some decision on."""
    decide, left = policy.decide, iter(range(count))

    def failing(*told):
        decision = decide(*told)
        return decision if next(left, None) is not None else decision._replace(value=math.nan)

    policy.decide = failing


def test_a_candidate_that_fails_is_none_any_more(slot):
    failing = seat("short", "v2")
    fail_after(failing.decider.policy, 1)
    slot.offer(failing)
    play(slot, 5, 6)
    row = rows(6, 7)[0]
    assert slot.decide(row, FLAT).target == (1.0,)
    followed = slot.follow(row, FLAT)
    assert followed.name == "v2"
    assert followed.refused == "failed in the shadow: the policy says no numbers, or too many"
    assert not slot.wants(failing.sha256)
    assert [swapped for swapped, *_ in play(slot, 7, 15)] == [None] * 8


def test_a_policy_that_fails_after_the_swap_is_taken_back_before_it_reduces(slot):
    failing = seat("short", "v2")
    fail_after(failing.decider.policy, 5)
    slot.offer(failing)
    log = play(slot, 5, 15)
    assert [swapped for swapped, *_ in log] == [None] * 3 + ["v2"] + [None] * 3 + ["v1"] + [
        None
    ] * 2
    assert [target for _, target, _ in log] == [1, 1, 1, -1, -1, 0, 0, 1, 1, 1]
    assert slot.rejected == {failing.sha256}
    assert slot.previous is None


def test_it_is_taken_back_sooner_where_an_agent_reduces_sooner(slot):
    failing = seat("short", "v2")
    failing.use(AGENT, DecisionSettings(max_failures=2))
    fail_after(failing.decider.policy, 5)
    slot.offer(failing)
    assert [swapped for swapped, *_ in play(slot, 5, 13)] == [None] * 3 + [
        "v2",
        None,
        None,
        "v1",
        None,
    ]


def test_settings_reach_all_of_them(slot):
    slot.offer(seat("short", "v2"))
    limited = dataclasses.replace(AGENT, limits={"max_exposure": 0.5})
    slot.use(limited, DecisionSettings(deadline_s=0.25))
    assert play(slot, 5, 6) == [(None, 0.5, -0.5)]
    seats = (slot.active, slot.candidate)
    assert [each.decider.deadline_ns for each in seats] == [250_000_000] * 2


def test_a_policy_that_is_prepared_knows_its_settings():
    limited = dataclasses.replace(AGENT, limits={"max_exposure": 0.5})
    made = prepare(packed(content("short")), limited, DecisionSettings(deadline_s=0.25))
    made.decider.warm(rows(0, 5))
    assert made.decider.deadline_ns == 250_000_000
    assert made.decider.decide(rows(5, 6)[0], FLAT).target[0] == -0.5


def test_a_history_that_ended_long_ago_is_refused(slot):
    slot.see(rows(5, 5 + RECENT_ROWS + 10))
    with pytest.raises(JaxtradeError, match=r"v2: its history ends too early: warm it up again"):
        slot.offer(seat("short", "v2"))
    slot.offer(seat("short", "v2", history=20))
    assert slot.candidate.decider.last_start_s == slot.active.decider.last_start_s


# Pointers


def test_a_registrys_pointer(tmp_path):
    pointer = Pointer("registry:a", registry=tmp_path / "models")
    assert pointer.token() == ""
    with pytest.raises(JaxtradeError, match="registry:a: there is no registry in"):
        pointer.read()
    known = {"agent": "a", "run": "r", "metrics": {}, "metadata": {}}
    with Registry(tmp_path / "models") as registry:
        for kind in ("long", "short"):
            (tmp_path / f"{kind}.onnx").write_bytes(content(kind))
            registry.register(tmp_path / f"{kind}.onnx", **known)
        with pytest.raises(JaxtradeError, match="registry:a: the agent has no active version"):
            pointer.read()
        registry.activate(1)
        first, token = pointer.read(), pointer.token()
        assert (first.name, first.content) == ("v1", content("long"))
        registry.activate(2)
        assert pointer.token() != token
        assert pointer.read().name == "v2"
        stored = registry.path(2)
        os.chmod(stored, 0o644)
        stored.write_bytes(content("short")[:-1])
    with pytest.raises(JaxtradeError, match="the bundle of v2 was altered"):
        pointer.read()
    assert pointer.token() == ""


def test_a_registry_that_nobody_writes_to_is_not_opened_again(tmp_path, monkeypatch):
    pointer = Pointer("registry:a", registry=tmp_path)
    known = {"agent": "a", "run": "r", "metrics": {}, "metadata": {}}
    with Registry(tmp_path) as registry:
        for kind in ("long", "short"):
            (tmp_path / f"{kind}.onnx").write_bytes(content(kind))
            registry.register(tmp_path / f"{kind}.onnx", **known)
        registry.activate(1)
    opened = []
    monkeypatch.setattr(pointer, "_version", lambda: opened.append(1) or Pointer._version(pointer))
    assert [pointer.token() for _ in range(5)] == ["v1"] * 5
    with Registry(tmp_path) as other:  # somebody looks, and writes nothing
        assert other.active("a").number == 1
        assert [pointer.token() for _ in range(5)] == ["v1"] * 5
        assert len(opened) <= 2
        other.activate(2)
        assert pointer.token() == "v2"
    assert [pointer.token() for _ in range(5)] == ["v2"] * 5
    assert len(opened) <= 5


def test_a_file_or_a_run_as_pointer(tmp_path):
    path = tmp_path / "policy.onnx"
    for pointer in (Pointer(str(path)), Pointer(str(tmp_path))):
        path.unlink(missing_ok=True)
        assert pointer.token() == ""
        with pytest.raises(JaxtradeError, match="cannot read"):
            pointer.read()
        path.write_bytes(b"one")
        token = pointer.token()
        assert (pointer.read().name, pointer.read().content) == (str(path), b"one")
        assert pointer.token() == token
        path.write_bytes(b"other")
        assert pointer.token() != token


def test_a_shelf_keeps_what_was_traded_with(tmp_path):
    shelf = Shelf(tmp_path / "models")
    bundles = [
        Bundle(name=f"v{n}", sha256=packed_hash(text), content=text)
        for n, text in enumerate(b"%d" % n for n in range(KEPT_BUNDLES + 2))
    ]
    for number, each in enumerate(bundles):
        shelf.keep(each)
        os.utime(shelf.folder / f"{each.sha256}.onnx", ns=(number, number))
        shelf.keep(bundles[0])  # is in use
    assert shelf.find(bundles[0].sha256, name="v0") == bundles[0]
    assert shelf.find(bundles[-1].sha256, name="v9") == bundles[-1]
    assert len(list(shelf.folder.iterdir())) == KEPT_BUNDLES
    with pytest.raises(JaxtradeError, match="cannot read"):
        shelf.find(bundles[1].sha256, name="v1")
    path = shelf.folder / f"{bundles[-1].sha256}.onnx"
    os.chmod(path, 0o644)
    path.write_bytes(read_bytes(path) + b"!")
    with pytest.raises(JaxtradeError, match="was altered"):
        shelf.find(bundles[-1].sha256, name="v9")


def packed_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
