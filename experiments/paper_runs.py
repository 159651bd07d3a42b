"""The market of an account on paper: that of the runs whose policies trade there."""

from pathlib import Path

from jaxtrade.experiments.paper import run_market, venue
from jaxtrade.experiments.paper_joined import joined
from jaxtrade.live.brokers.paper import PaperBroker
from jaxtrade.live.brokers.paper_account import PaperOptions
from jaxtrade.live.brokers.paper_replay import Replay
from jaxtrade.live.clock import SimulatedClock
from jaxtrade.live.settings import LiveSettings
from jaxtrade.specs import JaxtradeError


def market_account(settings: LiveSettings, options: PaperOptions, path: Path) -> PaperBroker:
    """A paper account on the bars that the options name, under the rules of the agents' runs.

    Raises:
        JaxtradeError: no run to be had, or bars that do not fit it.
    """
    places = {
        (run, options.overrides(name)): None for name, run in _runs(settings, options).items()
    }
    venues = [venue(*run_market(run, overrides)) for run, overrides in places]
    replay = Replay(joined(venues))
    replay.advance(replay.open_books())  # compiles, before anybody waits for a sign of life
    return PaperBroker(
        replay,
        path=path,
        clock=SimulatedClock(),
        speed=options.speed,
        with_quotes=options.quotes,
        faults=options.faults,
    )


def _runs(settings: LiveSettings, options: PaperOptions) -> dict[str, str]:
    """The directory of the run whose market each agent trades on."""
    if options.run is not None:
        return dict.fromkeys(settings.agents, options.run)
    runs = {name: agent.model for name, agent in settings.agents.items()}
    for name, model in runs.items():
        if not Path(model).is_dir():
            raise JaxtradeError(
                f"agents.{name}.model is {model}, no run's directory, so it names no market: give "
                "broker.run=RUN, the run whose data and rules it trades under"
            )
    return runs
