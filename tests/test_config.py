"""Configuration: the files under conf/, overrides, sweeps, run files.

What it says when something is wrong is in test_config_errors.py.
"""

import dataclasses
import inspect
import itertools
import math
import pathlib
import subprocess
import sys
from importlib import resources

import hydra
import jax
import numpy as np
import pytest
from hydra import version
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrade import agents
from jaxtrade.build import build, plain
from jaxtrade.costs import make_costs
from jaxtrade.envs import MAKERS, make
from jaxtrade.envs.params import make_params
from jaxtrade.experiments import config as module
from jaxtrade.experiments.config import (
    FILES,
    AgentConfig,
    Config,
    DataConfig,
    JoinConfig,
    apply,
    as_dict,
    compose,
    expand,
    from_yaml,
    to_yaml,
)
from jaxtrade.indicators import INDICATORS
from jaxtrade.market import Market
from jaxtrade.overrides import read_yaml
from jaxtrade.spans import split
from jaxtrade.specs import FeatureSpec, JaxtradeError, RiskLimits
from jaxtrade.synthetic import make_market

CONF = resources.files("jaxtrade.conf")


def options_of(group):
    """The files of a folder under conf/, by the names they are chosen with."""
    files = CONF.joinpath(group).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files)


GROUPS = {group: options_of(group) for group in FILES.groups}
PRESETS = options_of("preset")  # chosen by no one
NEEDED = {"data=csv": ["data.path=bars.csv"]}
CSV = ["data=csv", "data.path=bars.csv"]


@pytest.fixture(scope="module")
def default():
    return compose([])


@pytest.fixture(scope="module")
def of_file():
    return compose([*CSV, "data.join=[{path:vix.csv,name:vix}]"])


# The files under conf/


def test_groups_and_the_number_of_files():
    assert set(GROUPS) == {"agent", "data", "env"}
    assert 4 < len(list(pathlib.Path(str(CONF)).rglob("*.yaml"))) < 30


@pytest.mark.parametrize("options", list(itertools.product(*GROUPS.values())), ids="-".join)
def test_every_combination_of_options_composes_and_round_trips(options):
    choices = [f"{group}={option}" for group, option in zip(GROUPS, options, strict=True)]
    config = compose(choices + [text for choice in choices for text in NEEDED.get(choice, [])])
    assert isinstance(config, Config)
    assert from_yaml(to_yaml(config)) == config


def defaults_of(function):
    """The defaults of a function's keyword parameters."""
    given = inspect.signature(function).parameters
    return {name: each.default for name, each in given.items() if each.default is not each.empty}


def test_defaults_are_those_of_the_functions_they_go_to(default):
    assert default.env.costs.given() == defaults_of(make_costs)
    assert default.env.limits == RiskLimits()
    spec = FeatureSpec(names=())
    assert (default.env.window, default.env.clip) == (spec.window, spec.clip)
    of_env = defaults_of(make_params)
    assert default.env.episode_steps == of_env["episode_steps"]
    assert default.env.no_trade_band == of_env["no_trade_band"]
    of_market = defaults_of(make_market)
    assert default.data.seed == of_market["seed"]
    assert default.data.num_bars == of_market["num_bars"]
    fractions = defaults_of(split)["fractions"]
    assert default.data.fractions == compose(CSV).data.fractions == fractions
    of_join = defaults_of(Market.join)
    join = JoinConfig(path="vix.csv", name="vix")
    assert (join.columns, join.max_age_days) == (of_join["columns"], of_join["max_age_days"])


@pytest.mark.parametrize("option", GROUPS["env"])
def test_env_files_say_what_their_environment_would_do_by_itself(option):
    config = compose([f"env={option}"]).env
    market = make_market(num_bars=200)
    of_file, params = make(
        config.id,
        market=market,
        window=config.window,
        costs=config.costs.given(),
        limits=config.limits,
        no_trade_band=config.no_trade_band,
        rewards=config.weights,
        episode_steps=100,
    )
    alone, own = make(config.id, market=market, window=config.window, episode_steps=100)
    assert of_file == alone
    jax.tree.map(np.testing.assert_array_equal, params, own)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_laid_over_the_defaults_by_its_agent_and_environment_alone(preset):
    agent, env = preset.split("_")
    changed = read_yaml((CONF / "preset" / f"{preset}.yaml").read_text())
    tuned, plain_one = compose([f"agent={agent}", f"env={env}"]), compose([f"agent={agent}"])
    tree = as_dict(tuned)
    assert set(changed["agent"]) <= set(plain_one.agent.hyperparameters)
    for name, value in changed["agent"].items():
        assert tree["agent"][name] == value != as_dict(plain_one)["agent"][name]
    assert tuned.total_steps == changed["total_steps"] != plain_one.total_steps
    assert compose([f"agent={agent}", f"env={env}", "total_steps=7"]).total_steps == 7
    assert compose([f"env={env}"]).agent == compose([]).agent
    agents.make(tuned.agent.name, **tuned.agent.hyperparameters)


def test_there_is_a_file_for_each_environment_of_one_asset():
    ids = [compose([f"env={option}"]).env.id for option in GROUPS["env"]]
    assert sorted(ids) == sorted(module.ENVIRONMENTS) == sorted(set(ids))
    assert set(module.ENVIRONMENTS) == set(MAKERS) - {"Portfolio-v0", "GymTrading-v0"}


@pytest.mark.parametrize("name", GROUPS["agent"])
def test_agent_files_hold_every_hyperparameter_with_its_default(name):
    agent = compose([f"agent={name}"]).agent
    fields = dataclasses.fields(agents.AGENTS[agent.name])
    defaults = {field.name: field.default for field in fields}
    assert agent.hyperparameters == defaults
    agents.make(agent.name, **agent.hyperparameters)


def test_features_are_the_indicators_and_the_context(default):
    assert set(default.env.features) == {*INDICATORS, "relative_spread", "context"}
    assert all(default.env.features.values())


def test_only_settings_without_meaning_in_some_case_have_a_default_in_the_dataclasses():
    found = {
        f"{cls.__name__}.{field.name}"
        for cls in vars(module).values()
        if inspect.isclass(cls) and cls.__module__ == module.__name__
        for field in dataclasses.fields(cls)
        if field.default is not dataclasses.MISSING
    }
    of_data = {f"DataConfig.{name}" for name in module.KIND_OF_SETTING}
    assert found == of_data | {"JoinConfig.columns", "JoinConfig.max_age_days"}


@pytest.mark.parametrize("kind", module.CHOICE_OF_KIND)
def test_the_choice_named_in_messages_gives_the_kind(kind):
    choice = module.CHOICE_OF_KIND[kind]
    assert compose([choice, *NEEDED.get(choice, [])]).data.kind == kind


# Overrides


def test_values_reach_the_dataclasses_with_their_types():
    config = compose(
        [
            *CSV,
            "data.symbol=000001",
            "data.bar_seconds=60",
            "data.join=[{path:vix.csv,name:vix},{path:fx.csv,name:fx,columns:[open,close]}]",
            "env.levels=[0,1]",
            "env.clip=3",
            "env.costs.half_spread=0",
            "env.limits.max_gross=2",
            "agent.learning_rate=1e-3",
            "agent.hidden_sizes=[8]",
            "+agent.mine=tanh",
            "+agent.other=null",
            "seed=7",
            "seed=8",
        ]
    )
    assert config.data == DataConfig(
        kind="file",
        path="bars.csv",
        symbol="000001",
        bar_seconds=60,
        fractions=(0.6, 0.2, 0.2),
        join=(
            JoinConfig(path="vix.csv", name="vix", columns=("close",), max_age_days=10.0),
            JoinConfig(path="fx.csv", name="fx", columns=("open", "close"), max_age_days=10.0),
        ),
    )
    assert repr(config.env.levels) == "(0.0, 1.0)"
    assert compose(["env=etf", "env.exposure=[0,1]"]).env.exposure == (0.0, 1.0)
    assert compose(["env=stock", "+env.rewards.turnover=0.1"]).env.weights == {
        "simple_return": 1.0,
        "drawdown_increase": 0.1,
        "turnover": 0.1,
    }
    assert compose(["tracker=[wandb,tensorboard]"]).trackers == ("wandb", "tensorboard")
    assert compose([]).trackers == ("none",)
    assert repr((config.env.clip, config.env.costs.half_spread)) == "(3.0, 0.0)"
    assert config.env.limits == RiskLimits(max_gross=2.0)
    given = config.agent.hyperparameters
    assert given["learning_rate"] == 1e-3
    assert given["hidden_sizes"] == (8,)
    assert given["mine"] == "tanh"
    assert given["other"] is None
    assert type(given["num_envs"]) is int and type(given["anneal_learning_rate"]) is bool
    assert "name" not in given and config.agent.name == "ppo"
    assert config.seed == 8


def test_a_feature_is_added_switched_off_and_left_out():
    added = ["+env.features.my_indicator=true", "env.features.rsi=false", "~env.features.macd"]
    features = compose(added).env.features
    assert features["my_indicator"] is True
    assert features["rsi"] is False
    assert "macd" not in features
    assert list(features)[-1] == "my_indicator"


def test_a_hyperparameter_is_left_out():
    assert "gamma" not in compose(["~agent.gamma"]).agent.hyperparameters


def test_a_setting_refers_to_another(monkeypatch):
    monkeypatch.setenv("BARS_FILE", "from_environment.csv")
    config = compose(["data=csv", "data.path=${oc.env:BARS_FILE}", "env.window=${agent.num_envs}"])
    assert config.data.path == "from_environment.csv"
    assert config.env.window == config.agent.hyperparameters["num_envs"] == 256


@pytest.mark.parametrize("path", ["my bars.csv", "a,b (1).csv", "ü=1.csv", "C:\\x\\y.csv"])
def test_a_quoted_path_is_taken_as_it_is(path):
    assert compose(["data=csv", f"data.path='{path}'"]).data.path == path


# What Hydra must not do


def test_nothing_is_written_printed_or_left_behind(tmp_path, monkeypatch, capfd, default):
    monkeypatch.chdir(tmp_path)
    assert compose([]) == default
    assert expand(["seed=0,1"])
    for call in (compose, expand):
        with pytest.raises(JaxtradeError):
            call(["seed"])
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert not GlobalHydra.instance().is_initialized()


def test_works_inside_another_hydra_program(tmp_path, default):
    (tmp_path / "config.yaml").write_text("own: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        assert compose([]) == default
        with pytest.raises(JaxtradeError):
            compose(["env.widnow=3"])
        assert hydra.compose("config") == {"own": 1}
        assert str(version.getbase()) == "1.2"


def test_importing_and_composing_load_no_jax(tmp_path):
    code = (
        "import sys; from jaxtrade.experiments.config import compose, expand; "
        "compose(['seed=1']); expand(['seed=1,2']); "
        "print(sorted({'jax', 'flax', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert list(tmp_path.iterdir()) == []


# A run's file


def test_run_file_says_everything_resolved_in_the_keys_of_the_command_line(default):
    config = compose(["env.window=${agent.num_epochs}", "agent.learning_rate=1e-5"])
    lines = to_yaml(config).splitlines()
    assert "  window: 4" in lines
    assert "  learning_rate: 1.0e-05" in lines
    assert "hyperparameters" not in to_yaml(config)
    assert as_dict(config)["agent"]["hidden_sizes"] == [64, 64]
    assert as_dict(default)["env"]["limits"]["max_net"] == 1.0


texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(
    lambda text: "${" not in text and text != "???"
)
scalars = st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
names = st.from_regex(r"[A-Za-z0-9_]+", fullmatch=True)


@settings(deadline=None, max_examples=50)
@given(
    path=texts | st.sampled_from(["null", "on", "1e5", "12:30", "1_000", "~", "{a: b}", "a #b"]),
    rate=st.floats(0, 1, exclude_max=True),
    given=st.dictionaries(
        names.filter(lambda name: name != "name"),
        scalars | st.none() | st.lists(scalars).map(tuple),
    ),
)
def test_round_trip_is_exact(of_file, path, rate, given):
    costs = dataclasses.replace(of_file.env.costs, borrow_rate=rate)
    config = dataclasses.replace(
        of_file,
        data=dataclasses.replace(of_file.data, path=path, symbol=path),
        env=dataclasses.replace(of_file.env, costs=costs),
        agent=AgentConfig(name=path, hyperparameters=given),
    )
    after = from_yaml(to_yaml(config))
    assert after == config
    assert repr(after) == repr(config)  # 1 is not 1.0 is not True
    assert apply(config, []) == config


def test_numbers_written_by_hand_are_read_as_on_the_command_line(default):
    text = to_yaml(default).replace("half_spread: 0.0001", "half_spread: 2e-4")
    assert from_yaml(text).env.costs.half_spread == 2e-4


# An old run with other settings


def test_apply_changes_what_it_is_told_and_nothing_else(of_file):
    changed = apply(of_file, ["data.path=other.csv", "env.costs.half_spread=0.001"])
    costs = dataclasses.replace(of_file.env.costs, half_spread=0.001)
    assert changed == dataclasses.replace(
        of_file,
        data=dataclasses.replace(of_file.data, path="other.csv"),
        env=dataclasses.replace(of_file.env, costs=costs),
    )
    assert of_file.data.path == "bars.csv"


def test_apply_replaces_a_group_whole_and_keeps_the_others():
    config = compose(["data.seed=9", "env.window=5", "seed=3"])
    changed = apply(config, ["data.path=new.csv", "data=csv"])
    assert changed == dataclasses.replace(
        config, data=compose(["data=csv", "data.path=new.csv"]).data
    )


# Sweeps


def test_expand_is_the_product_with_the_last_key_fastest():
    assert expand(["seed=range(0,2)", "env.window=8", "agent.learning_rate=1e-4,3e-4"]) == [
        ["seed=0", "env.window=8", "agent.learning_rate=0.0001"],
        ["seed=0", "env.window=8", "agent.learning_rate=0.0003"],
        ["seed=1", "env.window=8", "agent.learning_rate=0.0001"],
        ["seed=1", "env.window=8", "agent.learning_rate=0.0003"],
    ]


def test_expand_without_a_sweep_is_one_run():
    assert expand([]) == [[]]
    assert expand(["seed=1"]) == [["seed=1"]]


def test_expand_takes_choices_lists_and_globs():
    assert expand(["agent.hidden_sizes=[8],[8,9]"]) == [
        ["agent.hidden_sizes=[8]"],
        ["agent.hidden_sizes=[8,9]"],
    ]
    assert expand(["seed=choice(4,5)"]) == [["seed=4"], ["seed=5"]]
    assert expand(["data=glob(*)"]) == [[f"data={option}"] for option in GROUPS["data"]]


@pytest.mark.parametrize(
    "text",
    [
        "data.path='a,b (1).csv'",
        "data.path=my file.csv",
        "data.path=C:\\x\\y.csv",
        "data.symbol=000001",
        "env.window=${agent.num_envs}",
        "~env.features.rsi",
        "+env.features.mine=true",
        "agent.learning_rate=1e-05",
        "name=",
    ],
)
def test_a_single_run_of_a_sweep_composes_as_if_given_alone(text):
    alone = compose([*CSV, "seed=4", text])
    assert [compose(run) for run in expand([*CSV, text, "seed=4,5"])] == [
        alone,
        dataclasses.replace(alone, seed=5),
    ]


# The builder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    number: float
    flag: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    many: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (0, "")


def test_build_nests_and_keeps_defaults():
    tree = {"inner": {"number": 1}, "many": [{"number": math.inf, "flag": True}], "pair": [3, "a"]}
    outer = build(Outer, tree)
    assert outer == Outer(
        inner=Inner(number=1.0), many=(Inner(number=math.inf, flag=True),), pair=(3, "a")
    )
    assert type(outer.inner.number) is float
    assert plain(outer) == {
        "inner": {"number": 1.0, "flag": None},
        "many": [{"number": math.inf, "flag": True}],
        "pair": [3, "a"],
    }
