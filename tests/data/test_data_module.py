"""Splits, batches, order, sharding and resume."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from gradspike.data.datamodule import DataModule
from gradspike.data.loader import evaluation_batches, training_batches, training_order
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.events import DigitsEventsConfig
from gradspike.data.options.pictures import DigitsConfig
from gradspike.data.registry import DATASETS
from gradspike.data.sets.digits import read_digits
from gradspike.data.source import stratified_split
from gradspike.errors import ConfigError, UserError
from helpers.data_samples import ABOUT_FILES, source_options

SPLIT_CHECKSUM = "7c43da00974b99e8a923c400136699da9b1c6f5fdb64c8a47312049391467e3d"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def datamodule(data_dir: Path, seed: int = 0, **options: Any) -> DataModule:
    data = DataModule(DigitsConfig(**options), 4, seed, data_dir)
    data.prepare_data()
    data.setup()
    return data


def at_epoch(epoch: int, rank: int = 0, world_size: int = 1) -> Any:
    """The attributes of a trainer that the DataModule reads."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=0))
    loops = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    return SimpleNamespace(
        current_epoch=epoch,
        global_rank=rank,
        world_size=world_size,
        fit_loop=loops,
        training=True,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )


def index_batches(loader: Any) -> list[list[int]]:
    return [batch["index"].tolist() for batch in loader]


def flat(batches: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


def test_the_split_is_fixed_complete_and_stratified() -> None:
    _, labels, splits = read_digits()
    assert hashlib.sha256(splits.tobytes()).hexdigest() == SPLIT_CHECKSUM
    assert np.bincount(splits).tolist() == [1259, 179, 359]
    for label in range(10):
        of_class = splits[labels == label]
        assert abs((of_class == 1).mean() - 0.1) < 0.005
        assert abs((of_class == 2).mean() - 0.2) < 0.005


def test_a_split_follows_its_seed_and_ignores_other_classes() -> None:
    labels = np.repeat(np.arange(4), 50)
    assert (stratified_split(labels, 0.1, 0.2, 1) != stratified_split(labels, 0.1, 0.2, 2)).any()
    fewer = np.where(labels == 3, 2, labels)
    same = labels < 2
    assert (stratified_split(labels, 0.1, 0.2, 1)[same] == stratified_split(fewer, 0.1, 0.2, 1)[same]).all()


def test_a_batch_is_what_the_samples_are(data_dir: Path) -> None:
    data = datamodule(data_dir)
    images, labels, splits = read_digits()
    for loader, split in ((data.train_dataloader(), 0), (data.val_dataloader(), 1), (data.test_dataloader(), 2)):
        batch = next(iter(loader))
        assert batch.keys() - {"group"} == {"input", "label", "index"}
        index = batch["index"].numpy()
        assert batch["input"].dtype == torch.uint8
        assert (batch["input"][:, 0].numpy() == images[index]).all()
        assert (batch["label"].numpy() == labels[index]).all()
        assert batch["label"].dtype == batch["index"].dtype == torch.int64
        assert (splits[index] == split).all()


def test_an_epoch_visits_every_training_sample_once_but_for_the_rest(data_dir: Path) -> None:
    data = datamodule(data_dir, batch_size=100)
    loader = data.train_dataloader()
    batches = index_batches(loader)
    assert [len(batch) for batch in batches] == [100] * 12
    assert len(loader) == 12
    seen = flat(batches)
    assert len(set(seen)) == 1200
    assert set(seen) <= set(data.samples.indices("train").tolist())


def test_the_only_batch_is_kept_even_when_it_is_not_full(data_dir: Path) -> None:
    loader = datamodule(data_dir, batch_size=5000).train_dataloader()
    assert [len(batch) for batch in index_batches(loader)] == [1259]
    assert len(loader) == 1


def test_evaluation_visits_every_sample_once_in_equal_batches(data_dir: Path) -> None:
    data = datamodule(data_dir, eval_batch_size=100)
    loader = data.test_dataloader()
    batches = index_batches(loader)
    assert len(batches) == len(loader) == 4
    assert sorted(flat(batches)) == data.samples.indices("test").tolist()
    assert {len(batch) for batch in batches} == {89, 90}


def test_order_depends_on_seed_and_epoch_only(data_dir: Path) -> None:
    def order(seed: int, epoch: int, **options: Any) -> list[int]:
        data = datamodule(data_dir, seed, **options)
        data.trainer = at_epoch(epoch)
        torch.manual_seed(int(torch.randint(1000, ())))
        return flat(index_batches(data.train_dataloader()))

    reference = order(1, 3, batch_size=1)
    assert order(1, 3, batch_size=1) == reference
    assert order(1, 3, batch_size=7) == reference[: 1259 // 7 * 7]
    assert order(1, 3, batch_size=64, workers=2) == reference[: 1259 // 64 * 64]
    for seed, epoch in ((1, 4), (2, 3), (3, 1)):
        other = order(seed, epoch, batch_size=1)
        assert sorted(other) == sorted(reference)
        assert np.mean(np.array(other) == np.array(reference)) < 0.02


def test_loading_leaves_the_random_numbers_of_the_run_alone(data_dir: Path) -> None:
    data = datamodule(data_dir)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            data.on_after_batch_transfer(batch, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("skip", [0, 1, 5, 19])
def test_skipping_gives_exactly_the_tail_in_the_first_epoch_only(data_dir: Path, skip: int) -> None:
    plain, resumed = datamodule(data_dir), datamodule(data_dir)
    resumed.skip_batches = skip
    loader, full = resumed.train_dataloader(), plain.train_dataloader()
    for epoch, skipped in ((3, skip), (3, skip), (4, 0)):
        plain.trainer = resumed.trainer = at_epoch(epoch)
        assert index_batches(loader) == index_batches(full)[skipped:]
        assert len(loader) == len(full) == 19


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_training_shards_partition_every_global_batch(world_size: int) -> None:
    order = training_order(np.arange(100, 350), seed=0, epoch=0)
    alone = training_batches(order, 24)
    ranks = [training_batches(order, 24, rank, world_size) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {250 // 24}
    for number, batch in enumerate(alone):
        assert sorted(np.concatenate([batches[number] for batches in ranks])) == sorted(batch)


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 4), (2, 3), (4, 2), (3, 1)])
def test_accumulated_micro_batches_of_all_ranks_are_the_global_batches(world_size: int, accumulate: int) -> None:
    order = training_order(np.arange(100, 350), seed=0, epoch=0)
    alone = training_batches(order, 24)
    ranks = [training_batches(order, 24, rank, world_size, accumulate) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {250 // 24 * accumulate}
    for step, batch in enumerate(alone):
        micro = batch.reshape(accumulate, -1)
        for part in range(accumulate):
            shares = [batches[step * accumulate + part] for batches in ranks]
            assert sorted(np.concatenate(shares)) == sorted(micro[part])
            assert {len(share) for share in shares} == {24 // world_size // accumulate}
            partner = dict(zip(micro[part], micro[part][::-1], strict=True))
            if len(shares[0]) % 2 == 0:  # mixing pairs a sample with its mirror image, on one rank as on several
                assert all([partner[sample] for sample in share] == list(share[::-1]) for share in shares)


def test_every_division_of_an_evaluation_is_exact() -> None:
    """2,664 combinations of samples, ranks and batch sizes, with shares and batches that are empty."""
    empty = 0
    for count, world_size, batch_size in itertools.product(range(1, 38), range(1, 9), range(1, 10)):
        ranks = [evaluation_batches(np.arange(count), batch_size, rank, world_size) for rank in range(world_size)]
        case = (count, world_size, batch_size)
        assert len({len(batches) for batches in ranks}) == 1, case
        assert sorted(np.concatenate([batch for rank in ranks for batch in rank])) == list(range(count)), case
        sizes = [[len(batch) for batch in batches] for batches in ranks]
        assert all(sizes[0]), case  # the first rank also measures layers, on samples of each of its batches
        assert max(map(max, sizes)) <= max(batch_size // world_size, 1), case
        empty += any(not all(of_rank) for of_rank in sizes)
    assert empty > 1000


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [7, 100, 101, 359])
def test_evaluation_shards_partition_the_split_in_equally_many_batches(world_size: int, count: int) -> None:
    ranks = [evaluation_batches(np.arange(count), 28, rank, world_size) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    batches = [batch for rank in ranks for batch in rank]
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert all(0 < len(batch) <= max(28 // world_size, 1) for batch in batches)


def test_batches_that_cannot_be_shared_out_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size=10.*3 devices"):
        training_batches(np.arange(100), 10, 0, 3)
    with pytest.raises(ConfigError, match="one device"):
        training_batches(np.arange(5), 10, 0, 2)
    with pytest.raises(ConfigError, match=r"batch_size=12.*2 devices and trainer.accumulate=4.*multiple of 8"):
        training_batches(np.arange(100), 12, 0, 2, 4)
    with pytest.raises(ConfigError, match=r"5 samples.*accumulate=1"):
        training_batches(np.arange(5), 10, 0, 1, 2)


def test_an_unusable_data_dir_is_an_error_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        DataModule(DigitsConfig(), 4, 0, tmp_path / "a" / "b").prepare_data()


@pytest.mark.parametrize("name", DATASETS.names())
def test_every_data_set_checks_its_time_steps(name: str) -> None:
    schema = DATASETS.config_class(name)
    required = {key: value for key, value in ABOUT_FILES.items() if schema.model_fields[key].is_required()}
    config = schema(name=name, **required)
    config.check_time_steps(1)
    config.check_time_steps(config.max_time_steps)
    for time_steps in (0, -1, config.max_time_steps + 1):
        with pytest.raises(ValueError, match=rf"time_steps={time_steps}: .*{name}.*1 to {config.max_time_steps}"):
            config.check_time_steps(time_steps)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (DigitsConfig, {"batch_size": 0}),
        (DigitsConfig, {"augment": {"shift": -1}}),
        (DigitsConfig, {"augment": {"shfit": 1}}),
        (DigitsConfig, {"bins": "equal_time"}),
        (DigitsEventsConfig, {"bins": "equal"}),
        (DigitsEventsConfig, {"camera": {"threshold": 0.0}}),
        (DigitsEventsConfig, {"camera": {"noise_hz": -1.0}}),
        (DigitsEventsConfig, {"count_scale": 0}),
    ],
)
def test_options_out_of_range_are_refused(config: type[DatasetConfig], options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**options)


@pytest.mark.parametrize("name", DATASETS.names())
def test_the_facts_about_a_data_set_are_true(name: str, tmp_path: Path) -> None:
    config = DATASETS.config_class(name)(name=name, **source_options(name, tmp_path / "source"))
    samples = DATASETS.implementation(name)(config, 4, tmp_path).load()
    assert samples.inputs.shape[-3:] == (config.channels, config.image_size, config.image_size)
    assert np.unique(samples.labels).tolist() == list(range(config.classes))
    assert len(samples.inputs.shape) == (4 if config.kind == "image" else 5)


@pytest.mark.parametrize("name", DATASETS.names())
def test_the_yaml_file_of_a_data_set_names_every_option(name: str) -> None:
    text = (Path(__file__).parents[2] / "conf" / "dataset" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    tree = yaml.safe_load(text)
    options = {key: ABOUT_FILES[key] if value == "???" else value for key, value in tree["dataset"].items()}
    config = DATASETS.config_class(name)(**options)
    assert options == config.model_dump(mode="json")
    config.check_time_steps(tree["time_steps"])


class Recorder(lightning.LightningModule):
    """A minimal module that records its inputs."""

    def __init__(self, stop_after: int | None = None, checkpoint: Path | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.fed: list[tuple[int, list[int], Tensor]] = []
        self.evaluated: list[Tensor] = []
        self.stop_after, self.checkpoint = stop_after, checkpoint

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        if len(self.fed) == self.stop_after:
            raise KeyboardInterrupt
        self.fed.append((self.current_epoch, batch["index"].tolist(), batch["input"].clone()))
        return torch.nn.functional.cross_entropy(self.layer(batch["input"].flatten(1)), batch["label"])

    def on_train_batch_end(self, *_: Any) -> None:
        if len(self.fed) == self.stop_after and self.checkpoint is not None:
            self.trainer.save_checkpoint(self.checkpoint)

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        self.evaluated.append(batch["input"].clone())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Recorder, data: DataModule, folder: Path, **options: Any) -> None:
    trainer = lightning.Trainer(
        max_epochs=3,
        accumulate_grad_batches=data.accumulate,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=1,
        default_root_dir=folder,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data, **options)


def same(one: list[tuple[int, list[int], Tensor]], two: list[tuple[int, list[int], Tensor]]) -> bool:
    pairs = zip(one, two, strict=True)
    return all(a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in pairs)


@pytest.mark.parametrize("stop_after", [3, 6, 8, 12])
@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_is_fed_by_epoch_and_resumes_anywhere(
    data_dir: Path, tmp_path: Path, stop_after: int, workers: int
) -> None:
    """Six batches an epoch; killed inside an epoch or at the end of one, the same batches follow."""
    options = {"batch_size": 200, "seed": 5, "workers": workers}
    unbroken, data = Recorder(), datamodule(data_dir, **options)
    fit(unbroken, data, tmp_path)
    assert [epoch for epoch, _, _ in unbroken.fed] == [0] * 6 + [1] * 6 + [2] * 6
    train = data.samples.indices("train")
    for number, (epoch, index, inputs) in enumerate(unbroken.fed):
        expected = training_batches(training_order(train, 5, epoch), 200)[number % 6]
        assert index == expected.tolist()
        raw = torch.from_numpy(np.asarray(data.samples.inputs[expected]))
        assert data._transform is not None
        assert torch.equal(inputs, data._transform(raw, torch.from_numpy(expected), epoch))
    if stop_after == 3:
        assert data._transform is not None
        raw = torch.from_numpy(np.asarray(data.samples.inputs[data.samples.indices("val")]))
        assert torch.equal(unbroken.evaluated[-1], data._transform(raw, torch.zeros(179), None)), (
            "validation is augmented"
        )

    checkpoint = tmp_path / "killed.ckpt"
    killed = Recorder(stop_after, checkpoint)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(killed, datamodule(data_dir, **options), tmp_path)
    resumed = Recorder()
    fit(resumed, datamodule(data_dir, **options), tmp_path, ckpt_path=checkpoint)
    assert same(killed.fed + resumed.fed, unbroken.fed)


@pytest.mark.parametrize("stop_after", [4, 12, 14])
def test_lightning_resumes_after_any_optimiser_step_of_accumulated_batches(
    data_dir: Path, tmp_path: Path, stop_after: int
) -> None:
    """Six steps of two micro-batches an epoch."""

    def module() -> DataModule:
        return DataModule(DigitsConfig(batch_size=200), 4, 5, data_dir, accumulate=2)

    def recorder(*options: Any) -> Recorder:
        torch.manual_seed(0)
        return Recorder(*options)

    unbroken, checkpoint = recorder(), tmp_path / "killed.ckpt"
    fit(unbroken, module(), tmp_path)
    assert [len(index) for _, index, _ in unbroken.fed] == [100] * 36
    killed, resumed = recorder(stop_after, checkpoint), recorder()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(killed, module(), tmp_path)
    fit(resumed, module(), tmp_path, ckpt_path=checkpoint)
    assert same(killed.fed + resumed.fed, unbroken.fed)
    for one, two in zip(unbroken.layer.parameters(), resumed.layer.parameters(), strict=True):
        assert torch.equal(one, two)
