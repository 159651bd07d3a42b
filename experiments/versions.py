"""What the subcommand `models` does: registered versions, and which one is active."""

from rich.console import Console
from rich.table import Table

from jaxtrade.experiments.rundir import RunDirectory
from jaxtrade.live.policy import OnnxPolicy
from jaxtrade.registry import Registry, Version
from jaxtrade.specs import JaxtradeError


def models(*, register: str | None, activate: str | None, folder: str) -> None:
    """Register a run, make a version active, then list all versions."""
    console = Console()
    with Registry(folder) as registry:
        if register is not None:
            version = _register(registry, register)
            console.print(f"{version.name} is {register}", highlight=False, soft_wrap=True)
        if activate is not None:
            active = registry.activate(_number(activate), reason="by hand")
            console.print(f"{active.name} is active for {active.agent}", highlight=False)
        _show(console, registry.versions(), folder)


def _register(registry: Registry, folder: str) -> Version:
    run = RunDirectory.open(folder)
    if not run.policy.is_file():
        raise JaxtradeError(
            f"{run.policy}: the run has no policy yet: jaxtrade export {run.folder}"
        )
    metadata = OnnxPolicy(run.policy).metadata
    config = run.read_config()
    return registry.register(
        run.policy,
        agent=config.name or f"{metadata.agent}-{'-'.join(metadata.symbols).lower()}",
        run=str(run.folder),
        metrics={name: value for name, value in metadata.metrics.items() if value is not None},
        metadata={"schema_hash": metadata.features.schema_hash, "symbols": metadata.symbols},
    )


def _show(console: Console, versions: list[Version], folder: str) -> None:
    if not versions:
        console.print(f"no versions in {folder}: jaxtrade models --register RUN", highlight=False)
        return
    table = Table("version", "active", "agent", "created", "test Sharpe")
    table.add_column("run", overflow="fold")
    for version in versions:
        sharpe = version.metrics.get("sharpe")
        table.add_row(
            version.name,
            "*" if version.is_active else "",
            version.agent,
            version.created[:16],
            "-" if sharpe is None else f"{sharpe:.2f}",
            version.run,
        )
    console.print(table)


def _number(text: str) -> int:
    digits = text.removeprefix("v")
    if not digits.isdecimal():
        raise JaxtradeError(f"version {text!r}: give one as in the list, such as v3")
    return int(digits)
