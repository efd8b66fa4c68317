"""Fetching an official file: whole and with its checksum, or not at all."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from gradspike.errors import UserError

log = logging.getLogger(__name__)


def download(url: str, md5: str | None, data_dir: Path, filename: str) -> None:
    """Put the file behind `url` into data_dir. Raises UserError, which says what to do by hand, where that fails."""
    from torchvision.datasets.utils import download_url

    partial = data_dir / f".{filename}.download"
    log.info("Downloading %s", url)
    try:
        partial.mkdir(exist_ok=True)
        download_url(url, str(partial), filename, md5)
        (partial / filename).replace(data_dir / filename)
    # Sockets, TLS, HTTP and checksums (RuntimeError) each fail in their own way.
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{url} could not be downloaded from {urlsplit(url).hostname} ({error}). Where there is a network, fetch "
            f"it and put it there: {data_dir / filename}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
