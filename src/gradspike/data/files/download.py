"""Downloads an official file. The file only appears once it is complete and its checksum is correct."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from gradspike.errors import UserError

log = logging.getLogger(__name__)


def download(url: str, md5: str | None, data_dir: Path, filename: str) -> None:
    """Download `url` to data_dir/filename. On failure, raises UserError with instructions for a manual download."""
    from torchvision.datasets.utils import download_url

    partial = data_dir / f".{filename}.download"
    log.info("Downloading %s", url)
    try:
        partial.mkdir(exist_ok=True)
        download_url(url, str(partial), filename, md5)
        (partial / filename).replace(data_dir / filename)
    # Sockets, TLS, HTTP and checksums (RuntimeError) raise different errors.
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{url} could not be downloaded from {urlsplit(url).hostname} ({error}). Download it elsewhere and put it "
            f"there: {data_dir / filename}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
