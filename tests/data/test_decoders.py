"""Both decoders agree: PIL, which prepares images, and torchvision, which decodes compressed images during training."""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gradspike.data.options.pictures import ImageFolderConfig
from gradspike.data.pictures.decode import decode
from gradspike.data.pictures.encoded import decode_stored
from gradspike.data.pictures.encoded_source import encode
from gradspike.data.sets.image_folder import ImageFolder
from gradspike.data.source import Samples
from helpers.png_files import GREY, GREY_ALPHA, RGB, RGBA, png

SIZE = 40
_random = np.random.default_rng(0)


def _smooth(seed: int) -> np.ndarray:
    """An image without sharp edges, so that JPEG changes it little."""
    small = np.random.default_rng(seed).integers(30, 220, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


PIXELS = _smooth(1)
GREYS = np.repeat(PIXELS[..., :1], 3, axis=2)
WIDE = PIXELS.astype(np.uint16) << 8 | _random.integers(0, 256, PIXELS.shape).astype(np.uint16)
ALPHA = _random.integers(0, 256, (SIZE, SIZE, 1), dtype=np.uint8)
WIDE_ALPHA = _random.integers(0, 2**16, (SIZE, SIZE, 1)).astype(np.uint16)
COARSE = PIXELS[..., :1] >> 4
TURNED = Image.Exif()
TURNED[0x0112] = 6  # a camera held upright: turn by 90 degrees to show it
_picture, _other = Image.fromarray(PIXELS), Image.fromarray(_smooth(2))
_palette = _picture.quantize(16)
_looked_up = np.array(_palette.getpalette(), dtype=np.uint8).reshape(-1, 3)[np.asarray(_palette)]
_one_bit = np.where(GREYS > 127, 255, 0).astype(np.uint8)

FILES: dict[str, tuple[bytes, np.ndarray, float]] = {
    "RGB": (png(PIXELS, RGB), PIXELS, 0),
    "RGB, interlaced": (png(PIXELS, RGB, 8, True), PIXELS, 0),
    "RGB, one colour transparent": (png(PIXELS, RGB, 8, False, (b"tRNS", struct.pack(">3H", 9, 9, 9))), PIXELS, 0),
    "RGB, gamma": (png(PIXELS, RGB, 8, False, (b"gAMA", struct.pack(">I", 100000))), PIXELS, 0),
    "RGB, 16 bits": (png(WIDE, RGB, 16), PIXELS, 0),
    "RGB, 16 bits, interlaced": (png(WIDE, RGB, 16, True), PIXELS, 0),
    "RGB, 16 bits, 12 used": (png(WIDE, RGB, 16, False, (b"sBIT", bytes([12] * 3))), PIXELS, 0),
    "RGBA": (png(np.dstack([PIXELS, ALPHA]), RGBA), PIXELS, 0),
    "RGBA, 16 bits": (png(np.dstack([WIDE, WIDE_ALPHA]), RGBA, 16), PIXELS, 0),
    "grey": (png(PIXELS[..., :1], GREY), GREYS, 0),
    "grey, interlaced": (png(PIXELS[..., :1], GREY, 8, True), GREYS, 0),
    "grey, one level transparent": (png(PIXELS[..., :1], GREY, 8, False, (b"tRNS", b"\0\x40")), GREYS, 0),
    "grey, 16 bits": (png(WIDE[..., :1], GREY, 16), GREYS, 0),
    "grey, 16 bits, interlaced": (png(WIDE[..., :1], GREY, 16, True), GREYS, 0),
    "grey and alpha": (png(np.dstack([PIXELS[..., :1], ALPHA]), GREY_ALPHA), GREYS, 0),
    "grey and alpha, 16 bits": (png(np.dstack([WIDE[..., :1], WIDE_ALPHA]), GREY_ALPHA, 16), GREYS, 0),
    "grey, 4 bits": (png(COARSE, GREY, 4), np.repeat(COARSE * 17, 3, axis=2), 0),
    "grey, 2 bits": (png(COARSE >> 2, GREY, 2), np.repeat((COARSE >> 2) * 85, 3, axis=2), 0),
    "black and white": (png(PIXELS[..., :1] > 127, GREY, 1), _one_bit, 0),
    "palette": (_saved(_palette, "PNG"), _looked_up, 0),
    "palette, transparent": (_saved(_palette, "PNG", transparency=bytes(range(0, 160, 10))), _looked_up, 0),
    "orientation tag in a PNG": (_saved(_picture, "PNG", exif=TURNED), PIXELS, 0),
    "animated PNG": (_saved(_picture, "PNG", save_all=True, append_images=[_other]), PIXELS, 0),
    "JPEG": (_saved(_picture, "JPEG", quality=95), PIXELS, 3),
    "JPEG, progressive": (_saved(_picture, "JPEG", quality=95, progressive=True), PIXELS, 3),
    "JPEG, no subsampling": (_saved(_picture, "JPEG", quality=95, subsampling=0), PIXELS, 3),
    "JPEG, stored as RGB": (_saved(_picture, "JPEG", quality=95, keep_rgb=True), PIXELS, 3),
    "JPEG, grey": (_saved(_picture.convert("L"), "JPEG", quality=95), np.asarray(_picture.convert("L"))[..., None], 3),
    "JPEG, CMYK": (_saved(_picture.convert("CMYK"), "JPEG", quality=95), PIXELS, 3),
    "JPEG, orientation tag": (_saved(_picture, "JPEG", quality=95, exif=TURNED), PIXELS, 3),
    "JPEG, several pictures": (_saved(_picture, "MPO", save_all=True, append_images=[_other], quality=95), PIXELS, 3),
    "WebP": (_saved(_picture, "WEBP", quality=95), PIXELS, 3),
    "WebP, lossless": (_saved(_picture, "WEBP", lossless=True), PIXELS, 0),
    "WebP, alpha": (_saved(Image.fromarray(np.dstack([PIXELS, ALPHA])), "WEBP", lossless=True, exact=True), PIXELS, 0),
    "WebP, orientation tag": (_saved(_picture, "WEBP", lossless=True, exif=TURNED), PIXELS, 0),
    "WebP, animated": (_saved(_picture, "WEBP", save_all=True, append_images=[_other], lossless=True), PIXELS, 0),
}
"""The bytes of a file, its image, and the allowed mean difference for a lossy file."""


def as_jpeg(kind: str) -> float:
    """The mean difference that JPEG makes: more for images with edges."""
    return {"black and white": 14, "palette": 6, "palette, transparent": 6}.get(kind, 3)


def away(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found.astype(np.int64) - expected).mean())


@pytest.mark.parametrize("kind", FILES)
def test_what_is_prepared_is_what_the_file_shows(kind: str) -> None:
    content, expected, lossy = FILES[kind]
    assert away(np.asarray(decode(content)), expected) <= lossy


@pytest.mark.parametrize("kind", FILES)
def test_the_decoder_used_in_training_agrees(kind: str) -> None:
    """Bit-identical for files stored unchanged; modes that it would decode differently are stored as JPEG."""
    content, expected, _ = FILES[kind]
    kept = encode(content, SIZE)
    found = decode_stored(np.frombuffer(kept, dtype=np.uint8))
    assert found.dtype == torch.uint8
    picture = found.numpy().transpose(1, 2, 0)
    if kept == content:
        assert np.array_equal(picture, np.asarray(decode(content)))
    else:
        assert away(picture, expected) <= as_jpeg(kind)


def test_both_storages_of_a_folder_hold_the_same_pictures(tmp_path: Path) -> None:
    """Files of every kind, as a user has them."""
    for number, (content, _, _) in enumerate(FILES.values()):
        for split in ("train", "test"):
            place = tmp_path / "mixed" / split / "all"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:02d}{ending(content)}").write_bytes(content)
    pixels, encoded = (load(tmp_path, tmp_path / "mixed", storage=storage) for storage in ("pixels", "encoded"))
    assert list(pixels.names) == list(encoded.names)
    for place, name in enumerate(pixels.names):
        kind = list(FILES)[int(Path(name).stem)]
        found = encoded.inputs[np.array([place])][0]
        assert away(found, pixels.inputs[place]) <= as_jpeg(kind), kind
    np.testing.assert_allclose(pixels.mean, encoded.mean, atol=0.01)
    np.testing.assert_allclose(pixels.std, encoded.std, atol=0.02)


def ending(content: bytes) -> str:
    return {b"\x89PNG": ".png", b"RIFF": ".webp"}.get(content[:4], ".jpg")


def load(data_dir: Path, source: Path, classes: int = 1, **options: object) -> Samples:
    sizes = {"image_size": SIZE, "eval_shorter_side": SIZE, "shorter_side": SIZE}
    augment = {"augment": {"shift": 0, "flip": False}}
    config = ImageFolderConfig(source=str(source), classes=classes, val_fraction=0.0, **sizes, **augment, **options)  # type: ignore[arg-type]
    return ImageFolder(config, 1, data_dir).load()


def test_a_decoder_that_reads_another_picture_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradspike.data.pictures import encoded

    content = FILES["RGB"][0]
    assert encode(content, SIZE) == content
    monkeypatch.setattr(encoded, "decode_stored", lambda stored: decode_stored(stored).clone() // 2)
    assert encode(content, SIZE) != content


def test_levels_beyond_16_bits_are_refused() -> None:
    from gradspike.data.pictures.decode import _upper_bits

    with pytest.raises(ValueError, match="outside 16 bits"):
        _upper_bits(Image.fromarray(np.full((4, 4), 70_000, dtype=np.int32)))


@pytest.mark.parametrize("storage", ["pixels", "encoded"])
@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_channel_that_never_changes_counts_as_std_1(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, storage: str, level: int
) -> None:
    from gradspike.data.augment.batch import BatchTransform

    for number in range(6):
        for split in ("train", "test"):
            place = tmp_path / "flat" / split / f"class{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            array = _smooth(number)
            array[..., 2] = level
            (place / f"{number}.png").write_bytes(png(array, RGB))
    with caplog.at_level(logging.WARNING):
        samples = load(tmp_path, tmp_path / "flat", classes=2, storage=storage)
    assert samples.std[2] == 1.0
    assert 0 < samples.std[0] < 1
    assert caplog.text.count("Channel 2 of 'image_folder' has the same value in all training images") == 1
    config = ImageFolderConfig(image_size=SIZE, classes=2, normalize="standard")
    values = BatchTransform(config, 0, samples.mean, samples.std)(
        torch.from_numpy(np.asarray(samples.inputs[np.arange(2)])), torch.arange(2), None
    )
    assert torch.isfinite(values).all()
    assert values[:, 2].abs().max() < 1e-6
