"""What the README tells people to type is there."""

import contextlib
import io
import pathlib
import re
import shlex
import textwrap

import pytest
import typer.main

from jaxtrade.cli import app
from jaxtrade.experiments.config import compose as compose_run
from jaxtrade.live.compose import compose as compose_account

TEXT = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", TEXT, re.MULTILINE | re.DOTALL)
SHELL = [text.replace("\\\n", " ") for language, text in BLOCKS if not language]
COMMANDS = [
    shlex.split(part, comments=True)[1:]
    for text in SHELL
    for line in text.splitlines()
    for part in line.split("&&")
    if part.strip().startswith("jaxtrade ")
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_is_one(words) -> None:
    group = typer.main.get_command(app)
    name, *rest = words
    command = group.commands[name]
    command.make_context(name, list(rest))  # parses, and runs nothing
    overrides = [word for word in rest if "=" in word]
    if name == "live":
        assert compose_account(overrides).agents
    elif name == "train" and "-m" not in rest:
        compose_run(overrides)


def test_there_are_commands_for_everything() -> None:
    named = {words[0] for words in COMMANDS}
    assert len(COMMANDS) > 20
    assert set(typer.main.get_command(app).commands) - named <= {"export"}


def test_the_example_of_an_adapter_is_judged() -> None:
    from tests.test_live_conformance import VENUE, PaperBroker, Replay, SimulatedClock

    class MyBroker(PaperBroker):
        def __init__(self, account):
            super().__init__(Replay(VENUE), clock=SimulatedClock())

    (text,) = [text for language, text in BLOCKS if "check_broker(make_rig)" in text]
    code = textwrap.dedent(text).replace('"SPY"', repr(VENUE.symbols[0])).replace("86_400", "3_600")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, "README.md", "exec"), {"MyBroker": MyBroker})
    statuses = {line.split()[0] for line in said.getvalue().splitlines()}
    assert statuses == {"passed", "skipped"}
