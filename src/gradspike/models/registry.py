"""The backbones by name. Light: imports no torch."""

from __future__ import annotations

from gradspike.models.options import ModelConfig
from gradspike.registry import Registry

MODELS: Registry[ModelConfig] = Registry(
    "model",
    ModelConfig,
    {
        "spiking_cnn": "gradspike.models.spiking_cnn:SpikingCnn",
        "spiking_mlp": "gradspike.models.spiking_mlp:SpikingMlp",
        "spiking_rnn": "gradspike.models.spiking_rnn:SpikingRnn",
        "resnet19": "gradspike.models.resnet19:ResNet19",
        "sew_resnet18": "gradspike.models.sew_resnet:SewResNet18",
        "sew_resnet34": "gradspike.models.sew_resnet:SewResNet34",
        "sew_resnet50": "gradspike.models.sew_resnet:SewResNet50",
        "sew_resnet101": "gradspike.models.sew_resnet:SewResNet101",
        "sew_resnet152": "gradspike.models.sew_resnet:SewResNet152",
        "ms_resnet18": "gradspike.models.ms_resnet:MsResNet18",
        "ms_resnet34": "gradspike.models.ms_resnet:MsResNet34",
        "ms_resnet104": "gradspike.models.ms_resnet:MsResNet104",
        "vgg9": "gradspike.models.vgg9:Vgg9",
        "vggsnn": "gradspike.models.vgg:VggSnn",
        "vgg11": "gradspike.models.vgg:Vgg11",
        "vgg13": "gradspike.models.vgg:Vgg13",
        "vgg16": "gradspike.models.vgg:Vgg16",
        "spikformer": "gradspike.models.spikformer:Spikformer",
        "sdt": "gradspike.models.sdt:Sdt",
        "qkformer": "gradspike.models.qkformer:QkFormer",
        "timm": "gradspike.models.timm.network:TimmNetwork",
    },
)
