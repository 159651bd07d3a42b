"""The market of an account on paper: that of the run whose policy trades there."""

from pathlib import Path

from jaxtrade.experiments.paper import run_market, venue
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_account import PaperOptions
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.settings import LiveSettings
from jaxtrade.specs import JaxtradeError


def market_account(settings: LiveSettings, options: PaperOptions, path: Path) -> PaperBroker:
    """A paper account on the bars that the options name, under the rules of the agents' run.

    Raises:
        JaxtradeError: no run to be had, or bars that do not fit it.
    """
    replay = Replay(venue(*run_market(_run(settings, options), options.overrides())))
    replay.advance(replay.open_books())  # compiles, before anybody waits for a sign of life
    return PaperBroker(
        replay,
        path=path,
        clock=SimulatedClock(),
        speed=options.speed,
        with_quotes=options.quotes,
        faults=options.faults,
    )


def _run(settings: LiveSettings, options: PaperOptions) -> str:
    """The directory of the run whose market it is."""
    if options.run is not None:
        return options.run
    runs = {agent.model for agent in settings.agents.values()}
    if len(runs) > 1:
        raise JaxtradeError(
            "several models and no market of all of them: give broker.run=RUN, the run whose data "
            "and rules they trade under"
        )
    (model,) = runs
    if not Path(model).is_dir():
        raise JaxtradeError(
            f"{model} is no run's directory, so it names no market: give broker.run=RUN, the run "
            "whose data and rules it trades under"
        )
    return model
