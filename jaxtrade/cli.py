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
Folder = Annotated[
    str | None,
    typer.Option(help="The account's folder, or its name; by default the only one in live-data."),
]
Reason = Annotated[str, typer.Option(help="Why; it is kept.")]
Agent = Annotated[str, typer.Argument(help="The agent's name; without one, all.")]
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
    _call("experiments.commands:train", overrides=overrides or [], multirun=multirun, resume=resume)


@app.command()
def export(
    run: Run,
    output: Annotated[
        str | None, typer.Option(help="Where to; by default policy.onnx in the run's directory.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Export the best policy of a run, finished or not, as one ONNX file."""
    _call("experiments.commands:export", run=run, output=output)


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
    _call("experiments.commands:backtest", run=run, overrides=overrides or [], onnx=onnx)


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
    _call("experiments.versions:models", register=register, activate=activate, folder=folder)


@app.command()
def live(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings as key=value: broker=paper model=RUN data=FILE."),
    ] = None,
    *,
    folder: Folder = None,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it running; no picture.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Put an earlier account of this folder aside.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Trade with a model, on paper or for money; go on where it ended. Ctrl-C stops in order.

    Without settings it goes on with the account in the folder.
    """
    arguments = {"folder": folder, "detach": detach, "fresh": fresh}
    _call("live.starting:live", overrides=overrides or [], **arguments)


@app.command()
def status(
    *,
    folder: Folder = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show an account: of its engine or, where that is silent, of its journal."""
    _call("live.commands:status", folder=folder, watch=watch, as_json=as_json)


@app.command()
def pause(
    agent: Agent = "", *, reason: Reason = "", folder: Folder = None, debug: Debug = False
) -> None:
    """Let an agent open nothing until it is resumed."""
    _ask("pause", folder, agent=agent, reason=reason)


@app.command()
def resume(
    agent: Agent = "", *, reason: Reason = "", folder: Folder = None, debug: Debug = False
) -> None:
    """Let an agent trade again."""
    _ask("resume", folder, agent=agent, reason=reason)


@app.command()
def swap(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    model: Annotated[str, typer.Argument(help="A run, an .onnx file, or registry:AGENT.")],
    *,
    folder: Folder = None,
    debug: Debug = False,
) -> None:
    """Let an agent decide with another model, once that is checked and warm."""
    _ask("swap", folder, agent=agent, model=model)


@app.command()
def rollback(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    *,
    reason: Reason = "",
    folder: Folder = None,
    debug: Debug = False,
) -> None:
    """Let an agent decide with the model before its last one."""
    _ask("rollback", folder, agent=agent, reason=reason)


@app.command(name="set")
def set_(
    settings: Annotated[
        list[str],
        typer.Argument(help="As key=value: guard.max_gross=1.5 agents.spy.stop_loss=0.02"),
    ],
    *,
    folder: Folder = None,
    debug: Debug = False,
) -> None:
    """Change settings while the engine runs; they hold from the next bar on."""
    _call("live.commands:change", folder=folder, settings=settings)


@app.command()
def flatten(*, reason: Reason = "", folder: Folder = None, debug: Debug = False) -> None:
    """Pause all agents and close their positions; resume lets them trade again."""
    _ask("flatten", folder, reason=reason)


@app.command()
def stop(*, reason: Reason = "", folder: Folder = None, debug: Debug = False) -> None:
    """End an account's processes in order; positions and their stops stay at the broker."""
    _ask("stop", folder, reason=reason)


@app.command()
def kill(
    *,
    flatten: Annotated[bool, typer.Option("--flatten", help="Close all positions too.")] = False,
    reason: Reason = "killed by hand",
    timeout: Annotated[float, typer.Option(help="Seconds after which it gives up.")] = 60.0,
    folder: Folder = None,
    debug: Debug = False,
) -> None:
    """Stop all trading now: latch, cancel everything, and flatten where asked to.

    It needs no engine and has a connection of its own. Only `rearm` lets an engine trade again.
    """
    arguments = {"reason": reason, "flatten": flatten, "timeout_s": timeout}
    _call("live.emergency:kill", folder=folder, **arguments)


@app.command()
def alerts(*, folder: Folder = None, debug: Debug = False) -> None:
    """Send a test message over every channel of an account."""
    _call("live.alerts.trial:try_channels", folder=folder)


@app.command()
def logs(
    output: Annotated[str, typer.Argument(help="Where to: a .csv, .csv.gz or .parquet file.")],
    *,
    bars: Annotated[
        str | None, typer.Option(help="Only this symbol's bars, as training reads them.")
    ] = None,
    history: Annotated[
        str | None, typer.Option(help="With --bars: a file of older bars, before the live ones.")
    ] = None,
    folder: Folder = None,
    debug: Debug = False,
) -> None:
    """Write what was decided live, bar by bar, as a table; or the bars, to train on."""
    arguments = {"output": output, "bars": bars, "history": history}
    _call("experiments.live_logs:write_logs", folder=folder, **arguments)


@app.command()
def rearm(
    *,
    reason: Annotated[str, typer.Option(help="What you have looked at; it is kept.")],
    folder: Folder = None,
    debug: Debug = False,
) -> None:
    """Lift a kill, a halt or a breaker."""
    _call("live.emergency:rearm", folder=folder, reason=reason)


def _ask(request: str, folder: str | None, **arguments: Any) -> None:
    """Ask a running engine."""
    _call("live.commands:command", request=request, folder=folder, **arguments)


def _call(name: str, **arguments: Any) -> None:
    """Call a function given as module:function, below `jaxtrade`."""
    module, function = name.split(":")
    try:
        getattr(importlib.import_module(f"jaxtrade.{module}"), function)(**arguments)
    except KeyboardInterrupt:
        print("jaxtrade: interrupted", file=sys.stderr)
        raise typer.Exit(130) from None


def _missing_package(error: Exception) -> str:
    """What is not installed, where that is the error."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    package = (name or "").partition(".")[0]
    return "" if package == "jaxtrade" else package


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
    except Exception as error:
        package = _missing_package(error)
        if package:
            sys.exit(
                f"jaxtrade: {sys.argv[1]} needs {package}, which an installation that only trades "
                "leaves out: install jaxtrade without --no-deps"
            )
        # a defect of ours: say so, without the traceback
        text = " ".join(str(error).split())[:300]
        sys.exit(f"jaxtrade: unexpected {type(error).__name__}: {text} (--debug shows where)")


if __name__ == "__main__":
    main()
