"""Decodes one image file to RGB and scales it to a fixed size."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 2**27
"""Most pixels of a scaled picture."""
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")


def decode(content: bytes) -> Image.Image:
    """Decode a PNG, JPEG or WebP file to RGB. Raises ValueError with a reason to show to the user.

    Like `PIL.Image.convert("RGB")` (and torchvision's ImageFolder): grey becomes three equal channels, palettes are
    looked up, CMYK is converted, alpha is dropped, only the first frame of an animation is used, and orientation tags
    are ignored. PIL would clip 16-bit grey; this function keeps its upper 8 bits.
    """
    if not content:
        raise ValueError("is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # palettes with transparency, and large images
            picture: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
            picture.load()
            return rgb(picture)
    except UnidentifiedImageError as error:
        raise ValueError("is not a PNG, JPEG or WebP image") from error
    except Image.DecompressionBombError as error:
        raise ValueError("has too many pixels") from error
    # PIL's decoders raise different errors for damaged files (OSError, SyntaxError, EOFError, zlib.error).
    except Exception as error:
        raise ValueError(f"cannot be decoded ({str(error) or type(error).__name__})") from error


def rgb(picture: Image.Image) -> Image.Image:
    """Any picture of PIL as RGB, as `decode` does it. Raises ValueError for levels without a fixed range (mode F)."""
    if picture.mode == "F":
        raise ValueError("has float levels, whose range is not known; convert them to 8 bits")
    return _upper_bits(picture).convert("RGB")


def _upper_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey (mode I;16, or I in older versions of PIL) as 8 bits; other modes unchanged."""
    if not picture.mode.startswith("I"):
        return picture
    levels = np.asarray(picture).astype(np.int64)
    if levels.min() < 0 or levels.max() >= 2**16:
        raise ValueError(f"has levels from {levels.min()} to {levels.max()}, outside 16 bits")
    return Image.fromarray((levels >> 8).astype(np.uint8))


def check_shape(picture: Image.Image, shorter_side: int) -> None:
    """Raise ValueError if a picture is so narrow that scaling its shorter side would take gigabytes."""
    width, height = picture.size
    if shorter_side**2 * max(width, height) > MOST_PIXELS * min(width, height):
        raise ValueError(
            f"has {width}x{height} pixels: too narrow to scale its shorter side to {shorter_side} (more than "
            f"{MOST_PIXELS:,} pixels)"
        )


def fit(picture: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to `size` and crop the centre square, as torchvision's Resize and CenterCrop do."""
    width, height = picture.size
    if min(width, height) != size:
        check_shape(picture, size)
        scaled = int(size * max(width, height) / min(width, height))
        width, height = (size, scaled) if width <= height else (scaled, size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return picture if width == height else picture.crop((left, top, left + size, top + size))
