"""Which account is meant: by its folder, by its name, or as the only one there is."""

from pathlib import Path

from jaxtrade.live.settings import FILE, FOLDERS
from jaxtrade.specs import JaxtradeError


def account_folder(folder: str | None) -> Path:
    """The folder of an account: as given, by its name, or the only one there is.

    Raises:
        JaxtradeError: there is none, or there are several.
    """
    accounts = sorted(path.parent for path in Path(FOLDERS).glob(f"*/{FILE}"))
    if folder is not None:
        found, named = Path(folder), Path(FOLDERS) / folder
        is_name = not (found / FILE).exists() and (named / FILE).exists()
        return named if is_name else found
    if len(accounts) == 1:
        return accounts[0]
    if not accounts:
        raise JaxtradeError(f"no account in {FOLDERS}: give --folder FOLDER")
    names = ", ".join(path.name for path in accounts)
    raise JaxtradeError(f"several accounts: give --folder, one of {names}")
