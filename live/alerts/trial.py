"""What `jaxtrade alerts` does: a message over every channel, now, and what became of it."""

from jaxtrade.live.alerts.channels import AppriseChannel, ChannelError, address
from jaxtrade.live.folders import account_folder
from jaxtrade.live.settings import read
from jaxtrade.specs import JaxtradeError


def try_channels(*, folder: str | None) -> None:
    """Send a message over each channel of an account.

    Raises:
        JaxtradeError: there is no channel, or one did not take it.
    """
    settings = read(account_folder(folder))
    if not settings.alerts.channels:
        raise JaxtradeError(
            f"{settings.folder}: no channel: give alerts.channels.NAME=env:VARIABLE, where the "
            "environment variable holds an address of apprise"
        )
    failed = []
    for name, source in settings.alerts.channels.items():
        try:
            channel = AppriseChannel(name, address(name, source))
            channel.send(f"jaxtrade {settings.name}", "a test: alerts arrive here", "info")
            print(f"{name}: delivered")
        except (JaxtradeError, ChannelError) as error:
            failed.append(name)
            print(f"{name}: {error}")
    if failed:
        raise JaxtradeError(f"not delivered: {', '.join(failed)}")
