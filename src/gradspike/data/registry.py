"""The data sets by name. Does not import torch."""

from __future__ import annotations

from gradspike.data.options.base import DatasetConfig
from gradspike.registry import Registry

DATASETS: Registry[DatasetConfig] = Registry(
    "dataset",
    DatasetConfig,
    {
        "digits": "gradspike.data.sets.digits:Digits",
        "digits_events": "gradspike.data.sets.digits_events:DigitsEvents",
        "cifar10": "gradspike.data.sets.cifar:Cifar",
        "cifar100": "gradspike.data.sets.cifar:Cifar100",
        "tiny_imagenet": "gradspike.data.sets.tiny_imagenet:TinyImageNet",
        "imagenet": "gradspike.data.sets.imagenet:ImageNet",
        "image_folder": "gradspike.data.sets.image_folder:ImageFolder",
        "cifar10dvs": "gradspike.data.sets.cifar10dvs:Cifar10Dvs",
        "cifar10dvs_sim": "gradspike.data.sets.cifar10dvs_sim:Cifar10DvsSim",
        "dvs_gesture": "gradspike.data.sets.dvs_gesture:DvsGesture",
        "nmnist": "gradspike.data.sets.nmnist:NMnist",
        "ncaltech101": "gradspike.data.sets.ncaltech101:NCaltech101",
        "es_imagenet": "gradspike.data.sets.es_imagenet:ESImageNet",
        "shd": "gradspike.data.sets.shd:Shd",
        "ssc": "gradspike.data.sets.ssc:Ssc",
        "event_folder": "gradspike.data.sets.event_folder:EventFolder",
    },
)
