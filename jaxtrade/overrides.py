"""Hydra and OmegaConf, in the only place that knows them: from texts to a plain mapping.

Group choices (`data=csv`) are composed by Hydra; settings (`env.window=64`, `+env.features.x=true`,
`~agent.gamma`) are then laid over the result, which may as well be the settings of an older run.
Which files under `conf/` there are to choose from is told by `ConfigFiles`: those of a training
run, or of live trading.
Every fault ends as a JaxtradeError of one line. Hydra's folders, logging and changes of directory
are not used, and its global state is left as it was.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import hydra
import yaml  # type: ignore[import-untyped]
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from jaxtrade.build import join, nearest, unknown_key
from jaxtrade.specs import JaxtradeError

CONF_MODULE = "jaxtrade.conf"

_AT = "__at__"
"""What stands for the @ in a key while Hydra reads it, to whom an @ means something else."""

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfigFiles:
    """The files under `conf/` that one kind of configuration is made of.

    primary: the file with the top-level settings and the default choices; groups: the folders that
    can be chosen from; open_keys: where names of one's own may be added with +; framed: the key
    whose names may have an @, as in `rsi@1h`; refused: what to say of an option that would be known
    elsewhere, by `group=option`.
    """

    primary: str
    groups: tuple[str, ...]
    open_keys: tuple[str, ...] = ()
    framed: str = ""
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def framed_key(self) -> re.Pattern[str] | None:
        """What finds a key with an @ at the start of an override."""
        if not self.framed:
            return None
        return re.compile(rf"^([+~]*{re.escape(self.framed)}\.\w+)@(\w+)(?==|$)")


def compose_tree(files: ConfigFiles, overrides: Sequence[str]) -> Tree:
    """One configuration: the defaults under `conf/`, choices and settings over them."""
    choices, settings = _read(files, overrides)
    return _resolved(_lay_over(files, _compose(files, choices), settings))


def change_tree(files: ConfigFiles, tree: Mapping[str, Any], overrides: Sequence[str]) -> Tree:
    """`tree` with settings laid over it; a group choice replaces its group whole."""
    choices, settings = _read(files, overrides)
    with _one_line_errors():
        config = OmegaConf.create(dict(tree))
    if choices:
        composed = _compose(files, choices)
        for group in choices:
            config[group] = composed[group]
    return _resolved(_lay_over(files, config, settings))


def read_yaml(text: str) -> object:
    """What the text of a YAML file holds; numbers are read as on the command line."""
    try:
        with _one_line_errors():
            return OmegaConf.to_container(OmegaConf.create(text), throw_on_missing=True)
    except yaml.YAMLError as error:
        raise JaxtradeError(f"not YAML: {' '.join(str(error).split())}") from error


def write_yaml(tree: Mapping[str, Any]) -> str:
    """The text of a YAML file that `read_yaml` reads as `tree`."""
    with _one_line_errors():
        return OmegaConf.to_yaml(OmegaConf.create(dict(tree)))


def expand(files: ConfigFiles, overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of a sweep: the product of all `key=a,b`, `choice` and `range`.

    The last key varies fastest. Without a sweep there is one run. Every list is good for
    `compose`, which checks keys and values.

    Raises:
        JaxtradeError: a text that cannot be read, a sweep without values or without an end.
    """
    with _hydra() as loader:
        parser = OverridesParser.create(config_loader=loader)
        parsed = [_parse(files, text, parser) for text in overrides]
        for override in parsed:
            if override.is_sweep_override() and not _has_values(override):
                raise JaxtradeError(
                    f"{override.input_line!r} gives no list of values: write key=a,b or "
                    "key=range(first,end,step)"
                )
        return BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]


def _has_values(override: Override) -> bool:
    """Whether a sweep has at least one value, and an end."""
    value = override.value()
    if not override.is_discrete_sweep() or (isinstance(value, RangeSweep) and not value.step):
        return False
    return next(override.sweep_string_iterator(), None) is not None


@contextlib.contextmanager
def _hydra() -> Iterator[ConfigLoader]:
    """Hydra on our groups, also inside another Hydra program, which finds its state unchanged."""
    state, version = GlobalHydra.instance(), VersionBase.instance()
    outer, outer_base = state.hydra, version.getbase()
    state.clear()
    try:
        with hydra.initialize_config_module(CONF_MODULE, version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = outer
        version.version_base = outer_base


def _read(files: ConfigFiles, overrides: Sequence[str]) -> tuple[dict[str, str], list[Override]]:
    """Group choices, the last of each group, and settings in order."""
    options = _options(files)
    parser = OverridesParser.create()
    choices: dict[str, str] = {}
    settings: list[Override] = []
    for text in overrides:
        override = _parse(files, text, parser)
        if override.is_sweep_override():
            raise JaxtradeError(f"{text!r} is a sweep: add -m; a list is written key=[a,b]")
        if override.key_or_group in options:
            group = override.key_or_group
            choices[group] = _option(files, override, options[group])
        else:
            settings.append(override)
    return choices, settings


def _options(files: ConfigFiles) -> dict[str, list[str]]:
    """The groups to choose from and the options of each."""
    with _hydra() as loader:
        return {group: loader.get_group_options(group) for group in files.groups}


def _option(files: ConfigFiles, override: Override, options: list[str]) -> str:
    """The option that an override of a group chooses."""
    group, value = override.key_or_group, override.value()
    if override.get_key_element() != group:  # with +, ++ or ~
        raise JaxtradeError(f"{override.input_line!r}: choose with {group}={'|'.join(options)}")
    if value in options:
        return str(value)
    if f"{group}={value}" in files.refused:
        raise JaxtradeError(f"{group}={value}: {files.refused[f'{group}={value}']}")
    match = nearest(str(value), options)
    names = ", ".join(options)
    hint = f"did you mean {match!r}? ({names})" if match else f"choose from {names}"
    raise JaxtradeError(f"{group} has no option {override.get_value_string()!r}: {hint}")


def _parse(files: ConfigFiles, text: str, parser: OverridesParser) -> Override:
    """One override in Hydra's grammar."""
    readable = _readable(files, text)
    try:
        override = parser.parse_override(readable)
    except HydraException as error:
        raise JaxtradeError(f"cannot read {text!r}: {_reason(readable, error)}") from error
    if readable != text:
        override.key_or_group = override.key_or_group.replace(_AT, "@")
        override.input_line = text
    if override.is_hydra_override():
        raise JaxtradeError(f"{text!r}: Hydra's own settings have no effect here: leave it out")
    if override.package is not None or not override.key_or_group:
        raise JaxtradeError(f"cannot read {text!r}: give key=value, with a key as in env.window")
    if override.is_delete() and override.value() is not None:
        raise JaxtradeError(f"cannot read {text!r}: give ~{override.key_or_group} alone")
    override.config_loader = parser.config_loader  # for glob(*)
    return override


def _readable(files: ConfigFiles, text: str) -> str:
    """The override as Hydra can read it."""
    framed = files.framed_key
    return text if framed is None else framed.sub(rf"\1{_AT}\2", text)


def _reason(text: str, error: HydraException) -> str:
    """What is wrong with a text that Hydra's grammar refuses."""
    key, _, value = text.partition("=")
    first_line = str(error).partition("\n")[0]
    if " while evaluating " in first_line:  # a function such as range(a)
        return first_line.rpartition("': ")[2]
    if not value or not re.fullmatch(r"(~|\+{0,2})\w[\w-]*([./][\w-]+)*", key):
        return "give key=value, with a key as in env.window"
    return f"""put a value with special characters in quotes, as in '{key}="VALUE"'"""


def _compose(files: ConfigFiles, choices: Mapping[str, str]) -> DictConfig:
    """The files under `conf/` for these choices, references not yet resolved."""
    chosen = [f"{group}={choice}" for group, choice in choices.items()]
    with _hydra():
        return hydra.compose(files.primary, chosen)


def _lay_over(files: ConfigFiles, config: DictConfig, settings: Sequence[Override]) -> DictConfig:
    """`config` with every setting changed, added or taken away, in order."""
    OmegaConf.set_struct(config, True)
    for override in settings:
        text, key = str(override.input_line), override.key_or_group
        tree = cast(Tree, OmegaConf.to_container(config))
        adds = override.is_add() or override.is_force_add()
        known = key in _dotted(tree)
        if not known and not adds:
            raise _unknown(files, key, text, tree)
        if known and override.is_add():
            raise JaxtradeError(f"{text!r}: {key} is there already: leave out the +")
        with _one_line_errors(text):
            if override.is_delete():
                where, _, name = key.rpartition(".")
                with open_dict(config):
                    del (OmegaConf.select(config, where) if where else config)[name]
                continue
            try:
                OmegaConf.update(config, key, override.value(), merge=True, force_add=adds)
            except (ConfigKeyError, ConfigAttributeError) as error:  # key={unknown:value}
                raise _unknown(files, str(error.full_key), text, tree) from error
    return config


def _unknown(files: ConfigFiles, key: str, text: str, tree: Tree) -> JaxtradeError:
    """The error for a key of `text` that `tree` does not have, with what may have been meant."""
    known = _dotted(tree)
    group = key.partition(".")[0]
    for option in _options(files).get(group, ()):
        if key in _dotted(_compose(files, {group: option})):
            return JaxtradeError(f"unknown setting {key!r}: it belongs to {group}={option}")
    parts = key.split(".")
    depths = (i for i in range(len(parts)) if ".".join(parts[: i + 1]) not in known)
    depth = next(depths, len(parts) - 1)
    where, rest = ".".join(parts[:depth]), ".".join(parts[depth:])
    for other in known:
        if f".{other}".endswith(f".{rest}"):
            return JaxtradeError(f"unknown setting {key!r}: did you mean {other!r}?")
    node: Any = tree
    for part in parts[:depth]:
        node = node[part]
    if not isinstance(node, dict):
        return JaxtradeError(f"unknown setting {key!r}: give the whole of {where!r}")
    error = unknown_key(parts[depth], node, where)
    if where not in files.open_keys or not text.startswith(key):
        return error
    return JaxtradeError(f"{error} (to add it: +{text})")


def _dotted(tree: Mapping[Any, Any], where: str = "") -> list[str]:
    """The dotted keys of a mapping at every depth, outer ones before inner ones."""
    keys = [join(where, key) for key in tree]
    for key, value in tree.items():
        if isinstance(value, Mapping):
            keys += _dotted(value, join(where, key))
    return keys


def _resolved(config: DictConfig) -> Tree:
    """The plain mapping, with references to other settings replaced by what they refer to."""
    with _one_line_errors():
        return cast(Tree, OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


@contextlib.contextmanager
def _one_line_errors(text: str = "") -> Iterator[None]:
    """Whatever OmegaConf refuses, as one line that starts with the override or the key."""
    try:
        yield
    except MissingMandatoryValue as error:
        key = error.full_key
        raise JaxtradeError(f"{key} is missing: give {key}=VALUE") from error
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        where = repr(text) if text else error.full_key
        raise JaxtradeError(f"{where}: {reason}" if where else reason) from error
