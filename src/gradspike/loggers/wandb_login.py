"""Whether the user is logged in to W&B. Imports nothing heavy."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlparse


def logged_in() -> bool:
    """Whether the environment or the netrc file has an API key for the W&B server. Makes no request."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
