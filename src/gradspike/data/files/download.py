"""Download of an official file: complete and with the right checksum, or not at all."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from gradspike.errors import UserError

log = logging.getLogger(__name__)


def download(url: str, md5: str | None, data_dir: Path, filename: str) -> None:
    """Download `url` to data_dir/filename. Raises UserError with what to do by hand if that fails."""
    from torchvision.datasets.utils import download_url

    partial = data_dir / f".{filename}.download"
    log.info("Downloading %s", url)
    try:
        partial.mkdir(exist_ok=True)
        download_url(url, str(partial), filename, md5)
        (partial / filename).replace(data_dir / filename)
    # Sockets, TLS, HTTP and checksums (RuntimeError) each raise errors of their own.
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{url} could not be downloaded from {urlsplit(url).hostname} ({error}). Download it elsewhere and put it "
            f"there: {data_dir / filename}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
