"""What a training, an evaluation or a measurement can lower when memory runs out."""

from __future__ import annotations

from gradspike.config.schema import ExperimentConfig


def to_lower(config: ExperimentConfig, trains: bool = True, resumed: bool = False) -> str:
    """The keys of a configuration that memory depends on, with their values, as the end of a sentence.

    trains: whether it is evaluated, too, and may cut batches into parts. resumed: whether it keeps most keys.
    """
    if resumed:
        own = [f"dataset.eval_batch_size={config.dataset.eval_batch_size} (validation and test)"]
        own += [f"dataset.workers={config.dataset.workers}"] if config.dataset.workers else []
        return f"lower {' or '.join(own)}; a resumed run keeps the rest, such as its batch size"
    keys = [f"dataset.batch_size={config.dataset.batch_size}"]
    if trains:
        keys.append(f"dataset.eval_batch_size={config.dataset.eval_batch_size} (validation and test)")
    width = getattr(config.model, "width", None)
    keys += [f"model.width={width}"] if width is not None else []
    keys += [f"dataset.workers={config.dataset.workers}"] if config.dataset.workers else []
    keys.append(f"time_steps={config.time_steps}")
    parts = 2 * config.trainer.accumulate
    cut = f", or cut batches into parts with trainer.accumulate={parts}" if trains else ""
    return f"lower {', '.join(keys[:-1])} or {keys[-1]}{cut}"
