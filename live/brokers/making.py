"""A broker by its name in the settings; what is named is imported when it is asked for."""

import importlib
from typing import Literal, Protocol

from jaxtrade.live.brokers.base import Broker
from jaxtrade.live.settings import LiveSettings
from jaxtrade.specs import JaxtradeError, unknown_name

BROKERS = {"paper": "jaxtrade.live.brokers.paper_account:make_paper"}
"""Who makes a broker, as module:function, which may also be the setting broker.kind itself."""

Role = Literal["engine", "kill"]


class Maker(Protocol):
    """What a name stands for."""

    def __call__(self, settings: LiveSettings, *, role: Role) -> Broker:
        """A broker that is not yet connected.

        role: of an engine, or of the kill switch, which may be connected beside an engine that
        hangs, needs no market data and must be quick. Raises JaxtradeError for a wrong option.
        """


def make_broker(settings: LiveSettings, *, role: Role = "engine") -> Broker:
    """The broker that the settings name.

    Raises:
        JaxtradeError: no such broker, or its maker refuses its options.
    """
    kind = settings.broker.kind
    if ":" not in kind and kind not in BROKERS:
        raise unknown_name("broker", kind, BROKERS)
    place = BROKERS.get(kind, kind)
    module, _, function = place.partition(":")
    try:
        maker: Maker = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise JaxtradeError(f"broker.kind is {kind!r}: {place} cannot be had: {error}") from error
    return maker(settings, role=role)
