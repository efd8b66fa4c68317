"""A whole training in plain PyTorch. Tests compare the trainer's weights with these."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import lightning as L
import torch
from torch import Tensor, nn

from gradspike.collected import collect_losses
from gradspike.config.schema import ExperimentConfig
from gradspike.data.loader import training_batches, training_order
from gradspike.training.build import build_data, build_model
from gradspike.training.losses import build_loss
from gradspike.training.mixing import build_mixing
from gradspike.training.optim import parameter_groups

State = dict[str, Tensor]


def plain_training(config: ExperimentConfig) -> Iterator[State]:
    """The model's state after every optimiser step: SGD at a constant rate, float32, one process."""
    L.seed_everything(config.seed, verbose=False)
    model = build_model(config).train()  # the backbone, with its spiking layers
    if config.trainer.channels_last:  # faster; sums come in another order
        model = model.to(memory_format=torch.channels_last)
    criterion = build_loss(config.loss)  # from logits of all time steps
    optimizer = torch.optim.SGD(parameter_groups(model, config.optimizer), momentum=config.optimizer.momentum)
    mixing = build_mixing(config.loss, config.dataset.classes, config.seed)  # mixup, CutMix or None

    data = build_data(config)
    data.setup()
    samples, transform = data.samples, data._transform
    assert transform is not None

    parts = config.trainer.accumulate
    for epoch in range(config.trainer.max_epochs):
        # Order, augmentation and mixing follow from seed, epoch and sample, so a restart repeats them.
        order = training_order(samples.indices("train"), config.seed, epoch)
        for step, batch in enumerate(training_batches(order, config.dataset.batch_size)):
            optimizer.zero_grad()
            for number, part in enumerate(batch.reshape(parts, -1)):  # gradients of the parts add up
                inputs = transform(torch.from_numpy(samples.inputs[part]), torch.from_numpy(part), epoch)
                labels = torch.from_numpy(samples.labels[part])
                if mixing is not None:
                    inputs, labels = mixing(inputs, labels, epoch, step * parts + number)
                with collect_losses() as extra:  # methods may add a loss of their own, such as PSG's
                    logits = model(inputs)  # [T, B, classes]
                loss = criterion(logits, labels) + extra.mean()
                (loss / parts).backward()
            if config.trainer.gradient_clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.trainer.gradient_clip)
            optimizer.step()
            yield copy.deepcopy(model.state_dict())
