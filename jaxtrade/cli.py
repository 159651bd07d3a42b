"""The `jaxtrade` command. What a subcommand needs is imported when it runs, and named by string.

Exit codes: 0 done; 1 an error, in one line; 2 wrong usage; 130 stopped by Ctrl-C.
"""

import importlib
import sys
from typing import Annotated, Any

import typer

from jaxtrade.specs import JaxtradeError

app = typer.Typer(
    help="A JAX-accelerated market simulator and agent suite.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings as key=value, such as data=csv data.path=FILE env.window=64."),
]
Run = Annotated[str, typer.Argument(help="The directory of a run.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def train(
    overrides: Overrides = None,
    *,
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="Sweep: key=a,b,c trains one run for each.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option(help="Go on with the run in this directory.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train an agent, test it out of sample, and export its policy.

    Without settings it trains on a synthetic market and needs no file and no network.
    """
    importlib.import_module("jaxtrade.agents.devices").connect()  # before anything is computed
    _call("commands:train", overrides=overrides or [], multirun=multirun, resume=resume)


@app.command()
def export(
    run: Run,
    output: Annotated[
        str | None, typer.Option(help="Where to; by default policy.onnx in the run's directory.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Export the best policy of a run, finished or not, as one ONNX file."""
    _call("commands:export", run=run, output=output)


@app.command()
def backtest(
    run: Run,
    overrides: Overrides = None,
    *,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Replay policy.onnx bar by bar, as live trading would.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Test the policy of a run again, on its own test span or, with settings, on other bars."""
    _call("commands:backtest", run=run, overrides=overrides or [], onnx=onnx)


@app.command()
def models(
    *,
    register: Annotated[
        str | None, typer.Option(help="Make the policy of this run a new version.")
    ] = None,
    activate: Annotated[
        str | None, typer.Option(help="Make this version, such as v3, the active one.")
    ] = None,
    folder: Annotated[str, typer.Option(help="The registry's folder.")] = "models",
    debug: Debug = False,
) -> None:
    """List the registered versions; register a run; make a version active."""
    _call("versions:models", register=register, activate=activate, folder=folder)


def _call(name: str, **arguments: Any) -> None:
    """Call a function given as module:function."""
    module, function = name.split(":")
    try:
        getattr(importlib.import_module(f"jaxtrade.experiments.{module}"), function)(**arguments)
    except KeyboardInterrupt:
        print("jaxtrade: interrupted", file=sys.stderr)
        raise typer.Exit(130) from None


def main() -> None:
    """Run the command; an error is one line on standard error unless `--debug` is given."""
    if "--debug" in sys.argv[1:]:
        app()
        return
    try:
        app()
    except JaxtradeError as error:
        sys.exit(f"jaxtrade: {error}")
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        sys.exit(f"jaxtrade: {named}{error.strerror or error}")
    except Exception as error:  # a defect of ours: say so, without the traceback
        text = " ".join(str(error).split())[:300]
        sys.exit(f"jaxtrade: unexpected {type(error).__name__}: {text} (--debug shows where)")


if __name__ == "__main__":
    main()
