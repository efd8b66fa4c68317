"""The data sets by name: their options and their implementations."""

from __future__ import annotations

from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.events import (
    Cifar10DvsConfig,
    Cifar10DvsSimConfig,
    DigitsEventsConfig,
    DvsGestureConfig,
    EventFolderConfig,
    NMnistConfig,
)
from gradspike.data.options.pictures import (
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
        "digits": Entry(DigitsConfig, "gradspike.data.sets.digits:Digits"),
        "digits_events": Entry(DigitsEventsConfig, "gradspike.data.sets.digits_events:DigitsEvents"),
        "cifar10": Entry(Cifar10Config, "gradspike.data.sets.cifar:Cifar"),
        "cifar100": Entry(Cifar100Config, "gradspike.data.sets.cifar:Cifar"),
        "tiny_imagenet": Entry(TinyImageNetConfig, "gradspike.data.sets.tiny_imagenet:TinyImageNet"),
        "imagenet": Entry(ImageNetConfig, "gradspike.data.sets.imagenet:ImageNet"),
        "image_folder": Entry(ImageFolderConfig, "gradspike.data.sets.image_folder:ImageFolder"),
        "cifar10dvs": Entry(Cifar10DvsConfig, "gradspike.data.sets.cifar10dvs:Cifar10Dvs"),
        "cifar10dvs_sim": Entry(Cifar10DvsSimConfig, "gradspike.data.sets.cifar10dvs_sim:Cifar10DvsSim"),
        "dvs_gesture": Entry(DvsGestureConfig, "gradspike.data.sets.dvs_gesture:DvsGesture"),
        "nmnist": Entry(NMnistConfig, "gradspike.data.sets.nmnist:NMnist"),
        "event_folder": Entry(EventFolderConfig, "gradspike.data.sets.event_folder:EventFolder"),
    },
)
