"""Spiking layers for one's own network, without Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradspike.config.compose import CONF_DIR, compose_plain, options_of
from gradspike.config.validate import validate
from gradspike.engine.registry import EngineName, choose_engine
from gradspike.errors import ConfigError, unknown
from gradspike.models.spiking_layers import name_layers
from gradspike.norms.base import ChannelNorm
from gradspike.spiking_norm import LayerContext, SpikingNorm
from gradspike.training.device import device_type

Part = str | Mapping[str, Any]
"""A method, neuron or norm: its name, as in `method=mpd_agl`, or a dictionary of its name and options."""

DATA = "cifar10dvs"  # Layers do not depend on it; it allows any number of time steps.


class SpikingLayers:
    """Makes the spiking layers of one network.

    layers = SpikingLayers(method="mpd_agl", neuron={"name": "lif", "decay": 0.5}, time_steps=4)
    layer = layers.layer(64)

    Layers take and return [T*B, C, *space], time first. Names and default options are those of the command line; parts
    outside gradspike are import paths, "my_file:MyClass". `engine` is eager (the reference), compiled, triton or auto;
    `device`, auto, cpu or gpu, is where it must run. Raises ConfigError for parts or options that do not exist or
    cannot be combined, UserError for an engine that cannot run.
    """

    def __init__(
        self,
        method: Part = "mpd_agl",
        *,
        neuron: Part = "plif",
        norm: Part = "tdbn",
        time_steps: int = 4,
        engine: EngineName = "eager",
        device: str = "auto",
    ) -> None:
        words = [f"dataset={DATA}", "recipe=none"]
        own = {}
        for group, part in (("method", method), ("neuron", neuron), ("norm", norm)):
            name, options = _named(group, part)
            if ":" in name:
                own[group] = {"name": name, **options}
                continue
            if name not in (known := options_of(group, [CONF_DIR])):
                raise ConfigError(unknown(group, name, known))
            words.append(f"{group}={name}")
            own[group] = options
        raw = compose_plain(words, [CONF_DIR])
        for group, options in own.items():
            raw[group] = options if "name" in options else {**raw[group], **options}
        config = validate({**raw, "time_steps": time_steps, "engine": engine})
        self.context = LayerContext(
            time_steps=config.time_steps,
            neuron=config.neuron,
            method=config.method,
            norm=config.norm,
            engine=choose_engine(config.engine, device_type(device)),
        )
        """What our own backbones place their layers with."""

    @property
    def time_steps(self) -> int:
        """T."""
        return self.context.time_steps

    def layer(self, channels: int, bias: float = 0.0, space: tuple[int, ...] = ()) -> SpikingNorm:
        """Norm, neuron and method for `channels` channels. `bias` shifts the initial mean of the current, in units of
        the threshold. `space` is the layer's height and width; only methods with a value for each neuron need it.
        """
        return _checked(self.context.layer(channels, bias), space)

    def neuron_layer(self, channels: int, space: tuple[int, ...] = ()) -> SpikingNorm:
        """The same without a norm, for currents that are normalised elsewhere or not at all."""
        return _checked(self.context.neuron_layer(channels), space)

    def channel_norm(self, channels: int, branches: int = 1) -> ChannelNorm:
        """The norm alone, for one of `branches` currents that are summed before a `neuron_layer`."""
        return self.context.channel_norm(channels, branches)


def _named(group: str, part: Part) -> tuple[str, dict[str, Any]]:
    """Name and further options. Raises ConfigError without a name."""
    if isinstance(part, str):
        return part, {}
    options = dict(part)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{group}: a dictionary of options needs a name, as in {{'name': 'my_{group}'}}.")
    return name, options


def _checked(layer: Any, space: tuple[int, ...]) -> SpikingNorm:
    assert isinstance(layer, SpikingNorm)
    method = layer.method
    if method.differences is not None:
        raise method.error("chooses a value by finite differences, which only gradspike's own training computes.")
    if method.per_neuron and not space:
        raise method.error("has a value for each neuron: give layer(channels, space=(height, width)).")
    if method.per_neuron:
        method.set_space(space)
    name_layers(layer)  # refuses a method and a neuron that do not fit
    return layer
