"""A training written out in plain PyTorch, to hold the trainer's against."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import lightning as L
import torch
from torch import Tensor, nn

from gradspike.config.schema import ExperimentConfig
from gradspike.data.loader import training_batches, training_order
from gradspike.training.build import build_data
from gradspike.training.mixing import build_mixing
from gradspike.training.module import SpikingClassifier
from gradspike.training.optim import parameter_groups

State = dict[str, Tensor]


def plain_training(config: ExperimentConfig) -> Iterator[State]:
    """The backbone's state after every optimiser step: SGD at a constant rate, fp32, one process.

    The batch of a step is cut into `trainer.accumulate` parts here, whatever the data module does.
    """
    L.seed_everything(config.seed, verbose=False)
    module = SpikingClassifier(config).train()
    data = build_data(config)
    data.setup()
    transform, samples = data._transform, data.samples
    assert transform is not None
    mixing = build_mixing(config.loss, config.dataset.classes, config.seed)
    optimizer = torch.optim.SGD(parameter_groups(module.model, config.optimizer), momentum=config.optimizer.momentum)
    parts = config.trainer.accumulate
    for epoch in range(config.trainer.max_epochs):
        order = training_order(samples.indices("train"), config.seed, epoch)
        for step, whole in enumerate(training_batches(order, config.dataset.batch_size)):
            optimizer.zero_grad()
            for number, part in enumerate(whole.reshape(parts, -1)):
                index = torch.from_numpy(part)
                inputs = transform(torch.from_numpy(samples.inputs[part]), index, epoch)
                labels = torch.from_numpy(samples.labels[part])
                if mixing is not None:
                    inputs, labels = mixing(inputs, labels, epoch, step * parts + number)
                (module.criterion(module.model(inputs), labels) / parts).backward()
            if config.trainer.gradient_clip is not None:
                nn.utils.clip_grad_norm_(module.model.parameters(), config.trainer.gradient_clip)
            optimizer.step()
            yield copy.deepcopy(module.model.state_dict())
