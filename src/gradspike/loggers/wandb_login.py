"""Whether the user is logged in to W&B. Imports nothing heavy."""

from __future__ import annotations

import netrc
from urllib.parse import urlparse

from gradspike.variables import variable


def logged_in() -> bool:
    """Whether the environment or the netrc file has an API key for the W&B server. Makes no request."""
    if variable("WANDB_API_KEY"):
        return True
    host = urlparse(variable("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(variable("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
