"""What configuration says when something is wrong with a text, a key, a value or a run's file."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrade.build import build
from jaxtrade.experiments.config import (
    Config,
    apply,
    compose,
    expand,
    from_yaml,
    to_yaml,
    unknown_key,
)
from jaxtrade.specs import JaxtradeError

CSV = ["data=csv", "data.path=bars.csv"]


def error_of(call, *args):
    with pytest.raises(JaxtradeError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FEATURES = "log_return, rsi, macd, ema_10, ema_50, volatility, relative_volume, relative_spread, "
FEATURES += "time_of_day, time_of_week, context"
ENV = "id, window, levels, exposure, rewards, episode_steps, features, clip, no_trade_band, "
ENV += "costs, limits"
IDS = "Trading-v0, StockTrading-v0, LeveragedETF-v0, Forex-v0 or Perpetual-v0"
COMPOSE_ERRORS = {
    # keys
    "env.widnow=3": "unknown setting 'env.widnow': did you mean 'env.window'?",
    "~env.widnow": "unknown setting 'env.widnow': did you mean 'env.window'?",
    "window=3": "unknown setting 'window': did you mean 'env.window'?",
    "features.rsi=false": "unknown setting 'features.rsi': did you mean 'env.features.rsi'?",
    "env.gamma=1": "unknown setting 'env.gamma': did you mean 'agent.gamma'?",
    "data.path=x": "unknown setting 'data.path': it belongs to data=csv",
    "env.zzz=3": f"unknown setting 'env.zzz': env has {ENV}",
    "+env.zzz=3": f"unknown setting 'env.zzz': env has {ENV}",
    "zzz=3": "unknown setting 'zzz': the top level has "
    "data, env, agent, name, seed, total_steps, output_dir, keep_checkpoints, tracker, device",
    "agent.clip_ration=1": "unknown setting 'agent.clip_ration': "
    "did you mean 'agent.clip_ratio'? (to add it: +agent.clip_ration=1)",
    "env.features.mine=true": f"unknown setting 'env.features.mine': env.features has {FEATURES} "
    "(to add it: +env.features.mine=true)",
    "env.features={mine:true}": "unknown setting 'env.features.mine': env.features has " + FEATURES,
    "env.levels.0=1": "unknown setting 'env.levels.0': give the whole of 'env.levels'",
    "+env.window=1": "'+env.window=1': env.window is there already: leave out the +",
    "+env.features.my-own=true": "a name in env.features is 'my-own': give letters, digits and _",
    "hydra.run.dir=x": "'hydra.run.dir=x': Hydra's own settings have no effect here: leave it out",
    # groups
    "data=cvs": "data has no option 'cvs': did you mean 'csv'? (csv, synthetic)",
    "data=zzz": "data has no option 'zzz': choose from csv, synthetic",
    "data=null": "data has no option 'null': choose from csv, synthetic",
    "env=portfolio": "env=portfolio: several assets are for Python so far: jaxtrade.make",
    "env.id=Portfolio-v0": f"env.id is 'Portfolio-v0': give {IDS} "
    "(several assets are for Python so far)",
    "env.id=trading": f"env.id is 'trading': give {IDS}",
    "+data=csv": "'+data=csv': choose with data=csv|synthetic",
    "~data": "'~data': choose with data=csv|synthetic",
    # texts
    "env.window": "cannot read 'env.window': give key=value, with a key as in env.window",
    "=5": "cannot read '=5': give key=value, with a key as in env.window",
    "": "cannot read '': give key=value, with a key as in env.window",
    "--env.window=3": "cannot read '--env.window=3': give key=value, with a key as in env.window",
    "env.levels[0]=1": "cannot read 'env.levels[0]=1': give key=value, with a key as in env.window",
    "data@x=csv": "cannot read 'data@x=csv': give key=value, with a key as in env.window",
    "data.path=ü (1).csv": "cannot read 'data.path=ü (1).csv': "
    "put a value with special characters in quotes, as in 'data.path=\"VALUE\"'",
    "~env.window=3": "cannot read '~env.window=3': give ~env.window alone",
    "seed=range(a)": "cannot read 'seed=range(a)': "
    "mismatch type argument start: str is incompatible with Union[int, float]",
    # sweeps
    "seed=0,1": "'seed=0,1' is a sweep: add -m; a list is written key=[a,b]",
    "data=csv,synthetic": "'data=csv,synthetic' is a sweep: add -m; a list is written key=[a,b]",
    "seed=range(0,2)": "'seed=range(0,2)' is a sweep: add -m; a list is written key=[a,b]",
    # missing
    "data=csv": "data.path is missing: give data.path=FILE",
    "~env.window": "env.window is missing: give env.window=VALUE",
    "env.window=???": "env.window is missing: give env.window=VALUE",
    "env.window=${nope}": "env.window: Interpolation key 'nope' not found",
    "env.window='${'": "\"env.window='${'\": no viable alternative at input '${'",
    # types
    "env.window=abc": "env.window is 'abc': give a whole number",
    "env.window=1.5": "env.window is 1.5: give a whole number",
    "env.window=true": "env.window is True: give a whole number",
    "env.window=null": "env.window is None: give a whole number",
    "env.window={a:1}": "env.window is {'a': 1}: give a whole number",
    "total_steps=1e6": "total_steps is 1000000.0: give a whole number, as in 1000000",
    "env.clip=true": "env.clip is True: give a number",
    "env.clip='1'": "env.clip is '1': give a number",
    "env.clip=nan": "env.clip is nan: give a number",
    f"env.clip=1{'0' * 400}": f"env.clip is 1{'0' * 76}...: give a number",
    "env.features.rsi=1": "env.features.rsi is 1: give true or false",
    "env.features=3": "env.features is 3: give names, each with true or false",
    "env.levels=[0,a]": "env.levels[1] is 'a': give a number",
    "env.levels=3": "env.levels is 3: give a list",
    "data.fractions=[1,2]": "data.fractions is [1, 2]: give a list of 3, each a number",
    "env.costs=3": "env.costs is 3: give its settings: "
    "commission_rate, half_spread, slippage, commission_per_unit, minimum_ticket, borrow_rate, "
    "margin_rate, idle_rate",
    "name=123": "name is 123: give text, in quotes on the command line, as in '\"123\"'",
    "agent.gamma={a:1}": "agent.gamma is {'a': 1}: "
    "give true or false, a whole number, a number, text, a list or null",
    "+agent.x='\\${y}'": "agent.x is '${y}': "
    "give a value without ${, which refers to another setting",
    "output_dir='a\nb'": "output_dir is 'a\\nb': give text on one line, without control characters",
    "name='\\${y}'": "name is '${y}': give a value without ${, which refers to another setting",
    # values
    "env.window=0": "env.window is 0: give 1 or more",
    "env.levels=[1]": "env.levels is (1.0,): give at least two different, finite exposures",
    "env.levels=[1,1]": "env.levels is (1.0, 1.0): give at least two different, finite exposures",
    "env.levels=[0,inf]": "env.levels is (0.0, inf): give at least two different, finite exposures",
    "env.exposure=[1]": "env.exposure is [1]: give a list of 2, each a number",
    "env.exposure=[1,0]": "env.exposure is (1.0, 0.0): give a lower and a higher exposure",
    "env.rewards={log_return:0}": "env.rewards is {'log_return': 0.0}: "
    "give at least one term a weight other than 0",
    "env.rewards.turnover=1": "unknown setting 'env.rewards.turnover': env.rewards has log_return "
    "(to add it: +env.rewards.turnover=1)",
    "env.costs.minimum_ticket=-1": "env.costs.minimum_ticket is -1.0: give 0 or more",
    "keep_checkpoints=0": "keep_checkpoints is 0: give 1 or more",
    "tracker=tensorbord": "tracker is 'tensorbord': give some of none, wandb, tensorboard",
    "env.episode_steps=0": "env.episode_steps is 0: give 1 or more",
    "env.clip=0": "env.clip is 0.0: give a number above 0",
    "env.clip=inf": "env.clip is inf: give a number above 0",
    "env.no_trade_band=-0.1": "env.no_trade_band is -0.1: give a number from 0 to below 1",
    "env.no_trade_band=1": "env.no_trade_band is 1.0: give a number from 0 to below 1",
    "env.costs.half_spread=1": "env.costs.half_spread is 1.0: give a fraction, from 0 to below 1",
    "env.limits.max_net=0": "env.limits: risk limit max_net is 0.0: it must be above 0",
    "seed=-1": "seed is -1: give a whole number from 0 to 4294967295",
    "seed=4294967296": "seed is 4294967296: give a whole number from 0 to 4294967295",
    "data.seed=-1": "data.seed is -1: give a whole number from 0 to 4294967295",
    "data.num_bars=0": "data.num_bars is 0: give 1 or more",
    "data.kind=cvs": "data.kind is 'cvs': give synthetic or file",
    "data.fractions=[1,0,0]": "data.fractions is (1.0, 0.0, 0.0): "
    "give three above 0 that add up to 1",
    "data.fractions=[0.6,0.2,0.1]": "data.fractions is (0.6, 0.2, 0.1): "
    "give three above 0 that add up to 1",
    "+data.path=x": "data.path has no meaning with data.kind=synthetic: "
    "add data=csv or leave it out",
    "total_steps=0": "total_steps is 0: give 1 or more",
    "output_dir=": "output_dir is '': give a folder",
    "device=cuda": "device is 'cuda': give one of auto, cpu, gpu, tpu",
    "name='../a'": "name is '../a': give letters, digits and . _ - after the first",
}


@pytest.mark.parametrize("text", COMPOSE_ERRORS)
def test_compose_says_in_one_line_what_is_wrong(text):
    assert error_of(compose, [text]) == COMPOSE_ERRORS[text]


def test_levels_and_exposure_exclude_each_other():
    found = error_of(compose, ["env.levels=[0,1]", "env.exposure=[0,1]"])
    assert found == "env.levels is (0.0, 1.0): give null beside env.exposure"


FILE_ERRORS = {
    "data.num_bars=5": "unknown setting 'data.num_bars': it belongs to data=synthetic",
    "+data.num_bars=5": "data.num_bars has no meaning with data.kind=file: "
    "add data=synthetic or leave it out",
    "data.path=null": "data.path is missing: give data.path=FILE",
    "data.path=''": "data.path is missing: give data.path=FILE",
    "data.bar_seconds=0": "data.bar_seconds is 0: give 1 or more",
    "data.symbol=600519": "data.symbol is 600519: "
    "give text, in quotes on the command line, as in '\"600519\"'",
    "data.join=[{name:vix}]": "data.join[0].path is missing: give data.join[0].path=VALUE",
    "data.join=[{path:a,nam:b}]": "unknown setting 'data.join[0].nam': "
    "did you mean 'data.join[0].name'?",
    "data.join=[{path:a,name:b,columns:[]}]": "data.join[0]: columns is (): "
    "give at least one column",
    "data.join=[{path:a,name:b,max_age_days:0}]": "data.join[0]: max_age_days is 0.0: "
    "give days above 0",
    "data.join=[{path:'',name:b}]": "data.join[0]: path is '': give a file",
    "data.join=[{path:a,name:''}]": "data.join[0]: name is '': give the context column's name",
    "data.join=[{path:a,name:b},{path:c,name:b}]": "data.join is ('b', 'b'): "
    "give every join its own name",
}


@pytest.mark.parametrize("text", FILE_ERRORS)
def test_compose_says_in_one_line_what_is_wrong_with_a_file(text):
    assert error_of(compose, [*CSV, text]) == FILE_ERRORS[text]


SIGNS = [*".,=+~[](){}:'\"\\@/*?-\nü1", "${", "???", "1e9"]
WORDS = ["env", "data", "agent", "window", "path", "levels", "features", "rsi", "csv", "hydra"]
VALUES = ["true", "null", "range", "choice", "glob", "seed"]
pieces = st.sampled_from([*SIGNS, *WORDS, *VALUES, "env.", "data=", "env.window="])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(pieces, max_size=8).map("".join), min_size=1, max_size=2))
def test_any_text_gives_a_configuration_or_one_line(texts):
    try:
        assert isinstance(compose(texts), Config)
    except JaxtradeError as error:
        assert len(str(error).splitlines()) == 1


YAML_ERRORS = [
    ("    rsi: true", "    1: true", "a name in env.features is 1: give letters, digits and _"),
    ("output_dir: runs", "output_dir: ???", "output_dir is missing: give output_dir=VALUE"),
    ("window: 32", "windw: 32", "unknown setting 'env.windw': did you mean 'env.window'?"),
    ("seed: 7", "seed: 7\nzzz: 1", "unknown setting 'zzz': the top level has "),
    ("  window: 32\n", "", "env.window is missing: give env.window=VALUE"),
    ("window: 32", "window: '32'", "env.window is '32': give a whole number"),
    ("window: 32", "window: ${seed}", "env.window is '${seed}': give a value without ${"),
    ("window: 32", "window: 0", "env.window is 0: give 1 or more"),
]


@pytest.mark.parametrize(("old", "new", "message"), YAML_ERRORS)
def test_a_changed_run_file_is_an_error_with_the_key(old, new, message):
    text = to_yaml(compose(["seed=7"]))
    assert text.count(old) == 1
    found = error_of(from_yaml, text.replace(old, new), "runs/a/config.yaml")
    assert found.startswith(f"runs/a/config.yaml: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML: while parsing a flow node "),
        ("\ta: 1", "not YAML: while scanning for the next token "),
        ("a: 1\na: 2", "not YAML: while constructing a mapping "),
        ("a: ${", "a: no viable alternative at input '${'"),
        ("- a", "the configuration is ['a']: give its settings: name, seed, "),
        ("a", "unknown setting 'a': the top level has name, seed, "),
        ("", "name is missing: give name=VALUE"),
    ],
)
def test_a_file_that_is_no_configuration_is_an_error_with_its_name(text, message):
    assert error_of(from_yaml, text).startswith(f"config.yaml: {message}")


APPLY_ERRORS = {
    "env.widnow=3": "unknown setting 'env.widnow': did you mean 'env.window'?",
    "data.path=x": "data.path has no meaning with data.kind=synthetic: "
    "add data=csv or leave it out",
    "data=csv": "data.path is missing: give data.path=FILE",
    "data=cvs": "data has no option 'cvs': did you mean 'csv'? (csv, synthetic)",
    "seed=1,2": "'seed=1,2' is a sweep: add -m; a list is written key=[a,b]",
    "env.window=x": "env.window is 'x': give a whole number",
    "seed=${nope}": "seed: Interpolation key 'nope' not found",
}


@pytest.mark.parametrize("text", APPLY_ERRORS)
def test_apply_has_the_same_errors(text):
    assert error_of(apply, compose([]), [text]) == APPLY_ERRORS[text]


@pytest.mark.parametrize(
    "text",
    [
        "seed=range(5,0)",
        "seed=range(0,5,0)",
        "agent.gamma=range(0.0,1.0,0)",
        "seed=interval(0,1)",
        "zzz=glob(*)",
    ],
)
def test_a_sweep_without_values_is_an_error(text):
    assert error_of(expand, ["seed=1", text]) == (
        f"{text!r} gives no list of values: write key=a,b or key=range(first,end,step)"
    )


def test_expand_has_the_same_errors_for_texts():
    assert (
        error_of(expand, ["env.window"])
        == "cannot read 'env.window': give key=value, with a key as in env.window"
    )
    assert error_of(expand, ["hydra.sweep.dir=a,b"]).startswith("'hydra.sweep.dir=a,b': Hydra's")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    number: float
    flag: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner


def test_build_says_where():
    assert error_of(build, Outer, {"inner": {}}, "top") == (
        "top.inner.number is missing: give top.inner.number=VALUE"
    )
    assert error_of(build, Outer, {"inner": {"number": 1, "flag": 0}}) == (
        "inner.flag is 0: give true or false"
    )
    assert error_of(build, Outer, None) == ("the configuration is None: give its settings: inner")


def test_unknown_key_names_the_nearest_or_all():
    known = ["learning_rate", "gamma"]
    assert str(unknown_key("learning_rat", known, "agent")) == (
        "unknown setting 'agent.learning_rat': did you mean 'agent.learning_rate'?"
    )
    assert str(unknown_key("zzz", known, "")) == (
        "unknown setting 'zzz': the top level has learning_rate, gamma"
    )
    assert str(unknown_key("zzz", [], "a")) == "unknown setting 'a.zzz': a has none"
