"""The backbones by name. Light: imports no torch."""

from __future__ import annotations

from gradspike.models.options import ModelConfig
from gradspike.registry import Registry

MODELS: Registry[ModelConfig] = Registry(
    "model",
    ModelConfig,
    {
        "spiking_cnn": "gradspike.models.spiking_cnn:SpikingCnn",
        "resnet19": "gradspike.models.resnet19:ResNet19",
        "sew_resnet18": "gradspike.models.sew_resnet:SewResNet18",
        "sew_resnet34": "gradspike.models.sew_resnet:SewResNet34",
        "vggsnn": "gradspike.models.vgg:VggSnn",
        "vgg13": "gradspike.models.vgg:Vgg13",
        "timm": "gradspike.models.timm.network:TimmNetwork",
    },
)
