"""Live settings: the command line's, the file's, and what may change while the engine runs."""

import dataclasses
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_cases
from hypothesis import strategies as st

from jaxtrade import yaml_text
from jaxtrade.live.compose import compose
from jaxtrade.live.sections import AlertSettings
from jaxtrade.live.settings import (
    HOT_SECTIONS,
    AgentSettings,
    changed,
    from_tree,
    read,
    write,
)
from jaxtrade.specs import JaxtradeError, RiskLimits

ONE = {"name": "paper", "folder": "f", "broker": {"kind": "paper"}, "agents": {"a": {"model": "m"}}}


@pytest.fixture
def settings(tmp_path):
    return compose(
        [
            "agents.spy.model=runs/2026-11-21/10-00-00-spy",
            "agents.spy.symbols=[SPY]",
            "agents.spy.budget=0.5",
            "agents.spy.limits.max_exposure=0.8",
            "agents.etf.model=registry:etf",
            "agents.etf.budget=0.5",
            "agents.etf.symbols=[TQQQ,UPRO]",
            "agents.etf.stop_loss=1e-2",
            "guard.max_gross=1.5",
            "alerts.channels.phone='env:PHONE_URL'",
            "alerts.quiet='22:00-07:00'",
            f"folder={tmp_path}/account",
        ]
    )


def refusal(*overrides: str) -> str:
    with pytest.raises(JaxtradeError) as error:
        compose(["model=m", *overrides])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_model_and_its_data_are_enough():
    made = compose(["broker=paper", "model=runs/a", "data=SPY_1d.csv"])
    assert made.agents == {"main": AgentSettings(name="main", model="runs/a")}
    assert (made.broker.kind, made.broker.options["data"]) == ("paper", "SPY_1d.csv")
    assert made.folder == "live-data/paper"


def test_agents_come_from_the_configuration(settings):
    assert set(settings.agents) == {"spy", "etf"}
    assert settings.agents["etf"].stop_loss == 0.01
    assert settings.agents["spy"].reviewed_by(RiskLimits(max_gross=2.0)) == RiskLimits(
        max_exposure=0.8, max_gross=2.0
    )


def test_the_file_gives_back_what_was_written(settings, tmp_path):
    path = write(settings)
    assert read(settings.path) == settings
    assert path.stat().st_mode & 0o077 == 0
    moved = settings.path.rename(tmp_path / "moved")
    assert read(moved) == dataclasses.replace(settings, folder=str(moved))


def test_a_file_of_hand_needs_little_and_is_named_where_it_is_wrong(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("name: a\nbroker: {kind: paper, speed: 1e-1}\nagents:\n  spy: {model: m}\n")
    made = read(tmp_path)
    assert made.broker.options == {"speed": 0.1}
    assert made.agents["spy"].name == "spy"
    for text, said in (
        ("name: a\nname: b\n", "line 2: name is there twice"),
        ("name: [", "not YAML"),
        ("name: a\nbroker: {}\nagents: {spy: {modle: m}}\n", "did you mean 'agents.spy.model'"),
        ("name: a\nbroker: {}\nagents: {}\n", "agents is empty"),
    ):
        file.write_text(text)
        with pytest.raises(JaxtradeError, match=r"settings\.yaml: ") as error:
            read(tmp_path)
        assert said in str(error.value)
    with pytest.raises(JaxtradeError, match=r"cannot read .*nowhere"):
        read(tmp_path / "nowhere")


def test_slips_are_named():
    assert "did you mean 'guard.max_gross'" in refusal("guard.max_gros=1")
    assert "agents.main: stop_loss is 1.5" in refusal("agents.main.stop_loss=1.5")
    assert "max_exposure" in refusal("agents.main.limits.cooldown_bars=3")
    assert "risk limit max_drawdown is 2" in refusal("agents.main.limits.max_drawdown=2")
    assert "did you mean 'paper'" in refusal("broker=papr")
    assert "unknown setting 'env'" in refusal("env.window=3")
    assert "add up to 1.5" in refusal("agents.b.model=m", "agents.b.budget=0.5")
    assert "time zone such as" in refusal("time_zone=Mars")
    assert "names nothing" in refusal("data=")
    assert "heartbeat_s x missed" in refusal("supervisor.heartbeat_s=0.1")
    with pytest.raises(JaxtradeError, match="give model=RUN"):
        compose([])


def test_a_symbol_has_one_owner():
    own = ["agents.b.model=m", "agents.b.budget=0.1", "agents.main.budget=0.1"]
    message = refusal(*own, "agents.main.symbols=[SPY]", "agents.b.symbols=[QQQ,SPY]")
    assert "SPY is traded by main already" in message


def test_an_address_of_a_channel_is_refused_and_not_repeated():
    message = refusal("alerts.channels.phone='tgram://12345:secret/1'")
    assert "env:VARIABLE" in message
    assert "secret" not in message


def test_limits_and_agents_settings_change_while_it_runs(settings):
    after = changed(settings, {"guard.max_gross": 2, "agents.spy.limits.max_net": 0.5})
    assert after.guard.max_gross == 2.0
    assert after.agents["spy"].limits == {"max_exposure": 0.8, "max_net": 0.5}
    assert settings.guard.max_gross == 1.5
    assert after == changed(
        changed(settings, {"guard.max_gross": 2.0}), {"agents.spy.limits.max_net": 0.5}
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("guard.max_gros", 2.0, "did you mean 'guard.max_gross'"),
        ("guard.max_gross", "2", "guard.max_gross is '2': give a number"),
        ("guard", {"max_gross": 2.0}, "guard cannot be changed while it runs"),
        ("agents.qqq.stop_loss", 0.1, "there is no 'agents.qqq'"),
        ("agents.spy.stop_loss", math.nan, "agents.spy.stop_loss"),
        ("agents.spy.model", "other", "jaxtrade swap"),
        ("agents.spy.budget", 0.1, "cannot be changed while it runs"),
        ("agents.spy", {}, "cannot be changed while it runs"),
        ("broker.kind", "dwx", "cannot be changed while it runs"),
        ("nme", "x", "cannot be changed while it runs"),
    ],
)
def test_what_may_not_change_is_refused(settings, key, value, said):
    with pytest.raises(JaxtradeError) as error:
        changed(settings, {key: value})
    assert said in str(error.value)


def test_every_hot_section_is_one(settings):
    for section in HOT_SECTIONS:
        field = dataclasses.fields(getattr(settings, section))[0].name
        value = getattr(getattr(settings, section), field)
        assert changed(settings, {f"{section}.{field}": value}) == settings


def test_defaults_of_the_file_are_those_of_the_dataclasses():
    composed = compose(["model=m"])
    bare = from_tree({**ONE, "agents": {"main": {"model": "m"}}})
    names = [field.name for field in dataclasses.fields(bare)]
    for name in sorted(set(names) - {"folder", "broker"}):
        assert getattr(composed, name) == getattr(bare, name), name


def test_reading_settings_brings_neither_hydra_nor_jax_nor_a_terminal():
    code = "import sys, jaxtrade.live.settings; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"jax", "hydra", "omegaconf", "rich", "typer", "pandas", "onnxruntime", "numpy"}
    assert not heavy & set(done.stdout.split())


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.from_regex(r"\w{1,8}", fullmatch=True), inner)
    ),
    max_leaves=8,
)


@settings_of_cases(max_examples=50)
@given(st.dictionaries(st.from_regex(r"[a-z]\w{0,5}", fullmatch=True), PLAIN))
def test_yaml_reads_what_it_wrote(tree):
    assert repr(yaml_text.read(yaml_text.write(tree))) == repr(tree)


def test_yaml_guesses_at_nothing():
    text = "a: 1e-4\nb: yes\nc: 12:30:00\nd: 010\ne: 2026-01-01\nf: .5\ng: +3\nh: ~\n"
    assert yaml_text.read(text) == {
        "a": 1e-4,
        "b": "yes",
        "c": "12:30:00",
        "d": "010",
        "e": "2026-01-01",
        "f": 0.5,
        "g": 3,
        "h": None,
    }
    with pytest.raises(JaxtradeError, match="not YAML"):
        yaml_text.read("!!python/object:os.system {}")


def test_quiet_hours_are_hours():
    assert AlertSettings(quiet="22:00-07:00").quiet
    for wrong in ("22-7", "24:00-07:00", "22:00", "22:60-07:00"):
        with pytest.raises(JaxtradeError, match="quiet is"):
            AlertSettings(quiet=wrong)
