"""The data sets by name."""

from __future__ import annotations

from gradspike.data.dataset_config import DatasetConfig
from gradspike.data.event_configs import (
    Cifar10DvsConfig,
    Cifar10DvsSimConfig,
    DigitsEventsConfig,
    DvsGestureConfig,
    EventFolderConfig,
    NMnistConfig,
)
from gradspike.data.image_configs import (
    Cifar10Config,
    Cifar100Config,
    DigitsConfig,
    ImageFolderConfig,
    ImageNetConfig,
    TinyImageNetConfig,
)
from gradspike.registry import Entry, Registry

DATASETS: Registry[DatasetConfig] = Registry(
    "dataset",
    {
        "digits": Entry(DigitsConfig, "gradspike.data.digits:Digits"),
        "digits_events": Entry(DigitsEventsConfig, "gradspike.data.digits_events:DigitsEvents"),
        "cifar10": Entry(Cifar10Config, "gradspike.data.cifar:Cifar"),
        "cifar100": Entry(Cifar100Config, "gradspike.data.cifar:Cifar"),
        "tiny_imagenet": Entry(TinyImageNetConfig, "gradspike.data.tiny_imagenet:TinyImageNet"),
        "imagenet": Entry(ImageNetConfig, "gradspike.data.imagenet:ImageNet"),
        "image_folder": Entry(ImageFolderConfig, "gradspike.data.image_folder:ImageFolder"),
        "cifar10dvs": Entry(Cifar10DvsConfig, "gradspike.data.cifar10dvs:Cifar10Dvs"),
        "cifar10dvs_sim": Entry(Cifar10DvsSimConfig, "gradspike.data.cifar10dvs_sim:Cifar10DvsSim"),
        "dvs_gesture": Entry(DvsGestureConfig, "gradspike.data.dvs_gesture:DvsGesture"),
        "nmnist": Entry(NMnistConfig, "gradspike.data.nmnist:NMnist"),
        "event_folder": Entry(EventFolderConfig, "gradspike.data.event_folder:EventFolder"),
    },
)
