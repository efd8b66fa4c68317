"""Options of data sets of still images."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator
from typing_extensions import override

from gradspike.data.options.base import AugmentConfig, DatasetConfig, FilesConfig
from gradspike.data.options.rand_augment import EXAMPLE, RandPolicy, rand_policy
from gradspike.registry import Allowed
from gradspike.touches import Form

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _known_policy(name: str) -> str:
    rand_policy(name)
    return name


class ImageAugmentConfig(AugmentConfig):
    """Random augmentation of images, in this order: resized crop, shift, flip, AutoAugment or RandAugment, colour
    jitter, cutout, random erasing."""

    autoaugment: Literal["cifar10", "imagenet"] | None = None
    """Learned AutoAugment policy (Cubuk et al., CVPR 2019), drawn for each sample; null: none."""
    resized_crop: Annotated[float, Field(gt=0, le=1)] | None = None
    """Smallest share of the area that a random resized crop keeps (aspect ratio 3/4 to 4/3); null: none."""

    rand_augment: (
        Annotated[str, AfterValidator(_known_policy), Allowed(f"a policy as in timm, such as {EXAMPLE}")] | None
    ) = None
    """timm's name of a RandAugment policy (Cubuk et al., NeurIPS 2020), such as rand-m9-n1-mstd0.4-inc1: magnitude 0 to
    10 (m), operations per image 1 to 8 (n), standard deviation of the magnitude (mstd), probability of each operation
    (p), set of operations (tsnn: Spikformer's for CIFAR); null: none."""
    color_jitter: float = Field(default=0.0, ge=0, le=1)
    """Largest change of brightness, contrast and saturation, as a share; 0: none."""
    random_erasing: float = Field(default=0.0, ge=0, le=1)
    """Share of images in which a rectangle of 2 to 33 % of the area is erased (Zhong et al., AAAI 2020); 0: none."""
    erasing_fill: Literal["zero", "channel", "pixel"] = "zero"
    """Erased pixels become the mean colour (zero), or normal noise per channel or per pixel."""

    @property
    @override
    def policy(self) -> str | None:
        return self.autoaugment

    @property
    @override
    def rand_policy(self) -> RandPolicy | None:
        return None if self.rand_augment is None else rand_policy(self.rand_augment)

    @property
    @override
    def jitter(self) -> float:
        return self.color_jitter

    @property
    @override
    def erasing(self) -> tuple[float, Literal["zero", "channel", "pixel"]]:
        return self.random_erasing, self.erasing_fill

    @model_validator(mode="after")
    def _one_policy(self) -> ImageAugmentConfig:
        if self.autoaugment is not None and self.rand_augment is not None:
            raise ValueError("rand_augment and autoaugment each draw operations for an image: set one of them to null")
        return self

    @model_validator(mode="after")
    def _something_to_fill(self) -> ImageAugmentConfig:
        if self.erasing_fill != "zero" and not self.random_erasing:
            raise ValueError(f"erasing_fill={self.erasing_fill} needs random_erasing above 0")
        return self


def for_images(key: str) -> str | None:
    """Why event frames do not have this augmentation of images, as a sentence; None for any other key."""
    own = ImageAugmentConfig.model_fields.keys() - AugmentConfig.model_fields.keys()
    if key not in {f"dataset.augment.{name}" for name in own}:
        return None
    return "It changes colours or sizes of still images; values of events are counts, and an empty pixel is 0."


class ImageConfig(DatasetConfig):
    """Options of still images."""

    kind: ClassVar[Literal["image", "frames"]] = "image"
    max_time_steps: ClassVar[int] = 64

    normalize: Literal["standard", "unit", "fixed"] = "standard"
    """standard: zero mean and unit variance per channel, measured on the training split; unit: 0 to 1; fixed: `mean`
    and `std` as given."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel on the scale 0 to 1, for normalize=fixed."""
    std: tuple[PositiveFloat, ...] | None = None
    """Standard deviation of each channel on the scale 0 to 1, for normalize=fixed."""
    augment: ImageAugmentConfig = ImageAugmentConfig()

    @property
    @override
    def divisor(self) -> float | None:
        return 255.0 if self.normalize == "unit" else None

    @override
    def statistics(
        self, measured: tuple[tuple[float, ...], tuple[float, ...]]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (self.mean or (), self.std or ()) if self.normalize == "fixed" else measured

    @model_validator(mode="after")
    def _fixed_needs_its_numbers(self) -> ImageConfig:
        if self.normalize == "fixed":
            for key, values in (("mean", self.mean), ("std", self.std)):
                if values is None or len(values) != self.channels:
                    raise ValueError(
                        f"normalize=fixed needs {key} with {self.channels} numbers, for example dataset.{key}="
                        f"[{','.join(['0.5'] * self.channels)}]"
                    )
        return self

    @model_validator(mode="after")
    def _resized_crop_needs_whole_pictures(self) -> ImageConfig:
        if self.augment.resized_crop is not None and not self.compressed:
            raise ValueError(
                "augment.resized_crop needs full-size images, which only dataset.storage=encoded keeps (imagenet, "
                "image_folder). Set that, or dataset.augment.resized_crop=null"
            )
        return self


class DigitsConfig(ImageConfig):
    """scikit-learn's 1,797 scanned digits of 8x8 pixels."""

    channels: ClassVar[int] = 1

    name: Literal["digits"] = "digits"
    image_size: Literal[8] = 8
    classes: Literal[10] = 10
    augment: ImageAugmentConfig = ImageAugmentConfig(shift=1)


class PictureFilesConfig(ImageConfig, FilesConfig):
    """Options of image files. Grey images become RGB."""

    channels: ClassVar[int] = 3

    storage: Form[Literal["pixels", "encoded"]] = "pixels"
    """Form of the prepared images. pixels: decoded, at image_size; encoded: compressed and decoded during training,
    for sets that are too large for the disk as pixels or need random resized crops."""

    @property
    @override
    def compressed(self) -> bool:
        return self.storage == "encoded"


class Cifar10Config(PictureFilesConfig):
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 images of 32x32 pixels, 10 classes."""

    name: Literal["cifar10"] = "cifar10"
    image_size: PositiveInt = 32
    classes: PositiveInt = 10
    batch_size: PositiveInt = 100
    storage: Literal["pixels"] = "pixels"
    normalize: Literal["standard", "unit", "fixed"] = "fixed"
    mean: tuple[float, ...] | None = CIFAR_MEAN
    std: tuple[PositiveFloat, ...] | None = CIFAR_STD
    augment: ImageAugmentConfig = ImageAugmentConfig(shift=4, flip=True, autoaugment="cifar10")


class Cifar100Config(Cifar10Config):
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 images of 32x32 pixels, 100 classes."""

    name: Literal["cifar100"] = "cifar100"  # type: ignore[assignment]
    classes: PositiveInt = 100


class TinyImageNetConfig(PictureFilesConfig):
    """Tiny-ImageNet-200: 100,000 + 10,000 images of 64x64 pixels, 200 classes; its `val` is the test split."""

    name: Literal["tiny_imagenet"] = "tiny_imagenet"
    image_size: PositiveInt = 64
    classes: PositiveInt = 200
    batch_size: PositiveInt = 100
    storage: Literal["pixels"] = "pixels"
    augment: ImageAugmentConfig = ImageAugmentConfig(shift=8, flip=True)


class ImageNetConfig(PictureFilesConfig):
    """ImageNet-1k (ILSVRC 2012): 1.28 million images, 1,000 classes; its `val` is the test split."""

    name: Literal["imagenet"] = "imagenet"
    image_size: PositiveInt = 224
    classes: PositiveInt = 1000
    batch_size: PositiveInt = 256
    workers: int = Field(default=8, ge=0, le=256)
    val_fraction: float = Field(default=0.01, ge=0, lt=1)
    storage: Literal["pixels", "encoded"] = "encoded"
    shorter_side: Form[PositiveInt] = 352
    """Largest shorter side in pixels; larger images are scaled down to it during preparation (encoded only)."""
    eval_shorter_side: PositiveInt = 256
    """Shorter side in pixels in evaluation, before the centre crop of image_size (encoded only)."""
    normalize: Literal["standard", "unit", "fixed"] = "fixed"
    mean: tuple[float, ...] | None = IMAGENET_MEAN
    std: tuple[PositiveFloat, ...] | None = IMAGENET_STD
    augment: ImageAugmentConfig = ImageAugmentConfig(flip=True, resized_crop=0.08)

    @model_validator(mode="after")
    def _centre_crop_fits(self) -> ImageNetConfig:
        if self.storage == "encoded" and self.eval_shorter_side < self.image_size:
            raise ValueError(
                f"eval_shorter_side={self.eval_shorter_side} is smaller than image_size={self.image_size}, the size of "
                f"the crop: choose at least {self.image_size}"
            )
        return self


class ImageFolderConfig(ImageNetConfig):
    """Your own images: `split/class/name.ext` in a folder, zip or tar file; PNG, JPEG or WebP."""

    name: Literal["image_folder"] = "image_folder"  # type: ignore[assignment]
    image_size: PositiveInt
    classes: PositiveInt
    workers: int = Field(default=0, ge=0, le=256)
    val_fraction: float = Field(default=0.1, ge=0, lt=1)
    storage: Literal["pixels", "encoded"] = "pixels"
    normalize: Literal["standard", "unit", "fixed"] = "standard"
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None
    augment: ImageAugmentConfig = ImageAugmentConfig(shift=4, flip=True)
