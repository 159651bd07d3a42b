"""YAML with the plain meaning of JSON's words and numbers, read without Hydra.

`1e-4` is a number here, `yes` and `12:30` are text, and a key that is there twice is an error: what
a person wrote into a file that moves money is not to be guessed at.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]

from jaxtrade.specs import JaxtradeError

_NULL, _BOOL = re.compile(r"^(?:null|~|)$"), re.compile(r"^(?:true|false)$")
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$"
)


class _Loader(yaml.SafeLoader):
    """YAML's own loader with fewer words that mean more than text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (as the base class declares it)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The mapping; its keys differ."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise JaxtradeError(f"line {key.start_mark.line + 1}: {key.value} is there twice")
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class _Dumper(yaml.SafeDumper):
    """YAML's own writer, which puts in quotes what either reader would not take for text."""


for _tag, _pattern, _first in (
    ("null", _NULL, ["~", "n", ""]),
    ("bool", _BOOL, list("tf")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)


def read(text: str) -> object:
    """What a YAML text holds.

    Raises:
        JaxtradeError: not YAML, a key twice, or what only Python could mean.
    """
    try:
        return yaml.load(text, _Loader)
    except JaxtradeError:
        raise
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise JaxtradeError(f"not YAML: {' '.join(str(error).split())}") from error


def write(tree: Mapping[str, Any]) -> str:
    """The text that `read` reads as `tree`, keys in their order."""
    text: str = yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text
