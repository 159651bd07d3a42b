"""How a slower frame is written, which there are, and what a specification says of it."""

import json

import numpy as np
import pytest

from jaxtrade import features
from jaxtrade.experiments.config import compose, expand, from_yaml, to_yaml
from jaxtrade.frames import at_frame, check_frame, frame_label, split_name
from jaxtrade.indicators import INDICATORS, ema
from jaxtrade.market import Market
from jaxtrade.specs import BundleMetadata, FeatureSpec, JaxtradeError, MarketSpec
from tests.bundles import linear_policy, metadata_of
from tests.markets import random_frame


def test_names():
    assert split_name("rsi") == ("rsi", 0)
    assert split_name("ema_10@15m") == ("ema_10", 900)
    assert [split_name(f"x@{label}")[1] for label in ("30s", "1h", "1d")] == [30, 3_600, 86_400]
    assert [frame_label(s) for s in (30, 90, 900, 5_400, 3_600, 86_400, 604_800)] == [
        *("30s", "90s", "15m", "90m", "1h", "1d", "7d"),
    ]
    for wrong in ("rsi@", "rsi@1w", "rsi@0m", "rsi@h", "rsi@1h@1d", "rsi@-5m", "rsi@1.5h"):
        with pytest.raises(JaxtradeError, match=r"is no frame: give .* like rsi@15m") as error:
            split_name(wrong)
        assert str(error.value).isprintable()


def test_a_specification_knows_the_length_of_its_bars():
    switches = {"rsi": True, "rsi@1h": True, "macd@1d": False}
    spec = features.resolve(switches, MarketSpec(symbols=("A",), bar_seconds=60), window=8)
    assert spec.names == ("rsi", "rsi@1h")
    assert spec.bar_seconds == 60
    assert features.columns(spec) == ("rsi", "rsi@1h")
    plain = features.resolve({"rsi": True}, MarketSpec(symbols=("A",), bar_seconds=60), window=8)
    assert plain.bar_seconds == 0
    assert plain == FeatureSpec(names=("rsi",), window=8)
    assert features.lookback(spec) == 8 + 15 * 60
    assert features.warmup_bars(spec) == 8 + (INDICATORS["rsi"].memory + 1) * 60


def test_the_hash_of_a_specification_without_frames_is_what_it_was():
    spec = FeatureSpec(names=("rsi", "ema_10"), context=("vix",), window=16, clip=4.0)
    assert spec.schema_hash == "fdf2bc65378c"
    hashes = {FeatureSpec(names=("rsi@1h",), bar_seconds=s).schema_hash for s in (0, 60, 300)}
    assert len(hashes) == 3


def test_settings_name_a_frame():
    config = compose(["+env.features.rsi@1d=true", "+env.features.ema_10@4h=false"])
    assert from_yaml(to_yaml(config)) == config
    switches = config.env.features
    assert switches["rsi@1d"] is True
    assert switches["ema_10@4h"] is False
    runs = expand(["+env.features.rsi@1h=true,false", "seed=1"])
    assert runs == [[f"+env.features.rsi@1h={each}", "seed=1"] for each in ("True", "False")]
    assert not compose([*runs[0], "env.features.rsi@1h=false"]).env.features["rsi@1h"]
    assert "rsi@1h" not in compose([*runs[0], "~env.features.rsi@1h"]).env.features
    for text, message in (
        ("env.features.rsi@1h=true", r"unknown setting 'env.features.rsi@1h'"),
        ("+env.features.rsi@=true", "cannot read '.env.features.rsi@=true'"),
        ("+env.features.rsi@1h=[", "cannot read '.env.features.rsi@1h=.': put a value"),
    ):
        with pytest.raises(JaxtradeError, match=message) as error:
            compose([text])
        assert str(error.value).isprintable()


def test_metadata_keeps_the_length_and_reads_what_was_written_before_there_were_frames():
    for spec in (FeatureSpec(names=("rsi@1h",), bar_seconds=60), FeatureSpec(names=("rsi",))):
        policy = linear_policy(spec, np.zeros((1, 3)), np.zeros((6, 3)), [1, 0, 0])
        text = metadata_of(policy).to_json()
        assert BundleMetadata.from_json(text).features == spec
    tree = json.loads(text)
    del tree["features"]["bar_seconds"]
    assert BundleMetadata.from_json(json.dumps(tree)).features == spec
    tree["features"]["bar_seconds"] = 60
    with pytest.raises(JaxtradeError, match="the bundle's features have schema"):
        BundleMetadata.from_json(json.dumps(tree))


@pytest.mark.parametrize(
    ("bar_seconds", "name", "message"),
    [
        (60, "rsj@1h", "unknown feature 'rsj@1h': there are log_return"),
        (60, "context@1h", "unknown feature 'context@1h'"),
        (60, "rsi@90s", "'rsi@90s': a frame of 90 s over bars of 60 s: give a whole multiple"),
        (3_600, "rsi@1h", "a frame of 3600 s over bars of 3600 s: give a whole multiple"),
        (3_600, "rsi@15m", "give a whole multiple of a bar, twice its length or more"),
        (60, "rsi@7h", "a frame of 25200 s .*: give one that divides a day, or a week"),
        (86_400, "rsi@2d", "give one that divides a day, or a week"),
        (60, "rsi@1y", "'1y' is no frame"),
    ],
)
def test_frames_that_do_not_fit(bar_seconds, name, message):
    with pytest.raises(JaxtradeError, match=message) as error:
        features.resolve(
            {name: False}, MarketSpec(symbols=("A",), bar_seconds=bar_seconds), window=8
        )
    assert str(error.value).isprintable()


def test_a_frame_without_or_with_another_length_of_bars():
    with pytest.raises(JaxtradeError, match=r"'rsi@1h': bar_seconds is 0: give the length"):
        features.columns(FeatureSpec(names=("rsi@1h",)))
    market = Market.from_frame(random_frame(30, freq="h"))
    with pytest.raises(JaxtradeError, match=r"has bars of 3600 s.* frames are for bars of 60 s"):
        features.raw_table(FeatureSpec(names=("rsi@1d",), bar_seconds=60), market)
    with pytest.raises(JaxtradeError, match="on a slower frame already"):
        at_frame(at_frame(ema(10), 300, 60), 3_600, 300)
    for length in (0, -60):
        with pytest.raises(JaxtradeError, match=f"bar_seconds is {length}"):
            check_frame(3_600, length)
