"""Speed of opening, decoding and feeding data, compared with common tools in the same run.

    python benchmarks/data.py [--data-dir data] [--shared ../shared/data] [--rounds 9]

- Augmented CIFAR-10 batches of 100 (crop, flip, AutoAugment, normalisation; from the stored images to the float batch
  on the device), compared with a torchvision + PIL DataLoader over the same images in memory, with 0, 1 or 2 workers.
- Opening a prepared data set; decoding event files, compared with tonic if its reader works; decoding, cropping JPEG.
- Images per second that training ResNet-19 (full width, T = 2) consumes.

Candidates take turns, so a machine that slows down slows all of them. Numbers are medians over the rounds; ratios have
their 10th and 90th percentile. CIFAR-10 is searched for in the data folder and the shared folder; without it, random
images of the same size are used. Parts whose files are missing are skipped.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as TF

from gradspike.config.compose import load_config
from gradspike.data.datamodule import DataModule
from gradspike.data.events.recordings import read_recording
from gradspike.data.options.pictures import CIFAR_MEAN, CIFAR_STD, Cifar10Config
from gradspike.data.pictures.encoded_source import encode
from gradspike.data.sets.cifar import Cifar
from gradspike.data.source import Samples
from gradspike.errors import UserError
from gradspike.training.build import build_model
from gradspike.training.losses import build_loss
from gradspike.training.optim import build_optimizer

BATCH = 100
BATCHES_A_ROUND = {"ours": 60, "theirs": 6}
RESNET_BATCH, RESNET_STEPS = 10, 2


class PilPictures(Dataset[tuple[torch.Tensor, int]]):
    """Like torchvision.datasets.CIFAR10: an array in memory, a PIL image and transforms for each sample."""

    def __init__(self, pictures: np.ndarray, labels: np.ndarray) -> None:
        self.pictures, self.labels = pictures, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, 4),
                transforms.RandomHorizontalFlip(),
                transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10),
                transforms.ToTensor(),
                transforms.Normalize(CIFAR_MEAN, CIFAR_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pictures[index])), int(self.labels[index])


def cifar10(data_dir: Path, shared: Path) -> tuple[Samples, Callable[[], Samples] | None]:
    """The samples of CIFAR-10 and a function that opens them; random samples and None if it is not found."""
    for source in (None, str(shared / "cifar10.zip")):
        opener = Cifar(Cifar10Config(source=source), 1, data_dir).load
        try:
            return opener(), opener
        except UserError:
            continue
    print("CIFAR-10 was not found; using random images of the same size.")
    low = torch.rand(50_000, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    pictures = (torch.nn.functional.interpolate(low, (32, 32), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)
    return Samples(pictures.numpy(), np.arange(50_000) % 10, np.zeros(50_000, dtype=np.uint8)), None


def our_batches(samples: Samples, device: torch.device) -> Iterator[torch.Tensor]:
    """Endless batches, as a trainer gets them from the DataModule."""
    data = DataModule(Cifar10Config(), 2, 0, "data")
    data.source.load = lambda: samples
    data.setup()
    progress = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=0)))
    trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=1, training=True)
    trainer.fit_loop = SimpleNamespace(epoch_loop=progress)
    data.trainer = trainer
    loader = data.train_dataloader()
    while True:
        for batch in loader:
            moved = move_data_to_device(data.on_before_batch_transfer(batch, 0), device)
            yield data.on_after_batch_transfer(moved, 0)["input"]
        trainer.current_epoch += 1


def their_batches(data: PilPictures, workers: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Endless batches of a plain DataLoader."""
    loader = DataLoader(
        data,
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    while True:
        for inputs, _ in loader:
            yield inputs.to(device, non_blocking=True)


def seconds_a_batch(batches: Iterator[torch.Tensor], count: int, ahead: int, device: torch.device) -> float:
    """Seconds per batch over `count` batches, after `ahead` batches that workers may have prepared in advance."""
    for _ in range(ahead):
        next(batches)
    _wait(device)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    _wait(device)
    return (time.perf_counter() - start) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def compare_feeding(samples: Samples, rounds: int, device: torch.device) -> float:
    """Print images per second of all candidates. Returns ours."""
    train = samples.indices("train")
    pictures = np.ascontiguousarray(np.asarray(samples.inputs)[train].transpose(0, 2, 3, 1))
    data = PilPictures(pictures, samples.labels[train])
    candidates = {"ours": (our_batches(samples, device), BATCHES_A_ROUND["ours"], 1)}
    for workers in (0, 1, 2):
        # A worker prepares two batches ahead, and may be working on a third.
        plan = (their_batches(data, workers, device), BATCHES_A_ROUND["theirs"], 3 * workers)
        candidates[f"torchvision + PIL, {workers} workers"] = plan
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, (batches, count, ahead) in candidates.items():
            seconds = seconds_a_batch(batches, count, ahead, device)
            if turn:  # the first round warms up
                times[name].append(seconds)
    print(f"\nAugmented CIFAR-10 batches of {BATCH} on {device}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, taken in times.items():
        rate = BATCH / statistics.median(taken)
        print(f"  {name:<32} {rate:>9,.0f} images/s{_ratios(times['ours'], taken)}", flush=True)
    return BATCH / statistics.median(times["ours"])


def _ratios(ours: list[float], theirs: list[float]) -> str:
    if ours is theirs:
        return ""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    low, *_, high = statistics.quantiles(ratios, n=10, method="inclusive")
    return f"   ours is {statistics.median(ratios):.1f} times as fast ({low:.1f} to {high:.1f})"


def resnet19_training(device: torch.device, precision: str) -> float:
    """Images per second that training ResNet-19 consumes."""
    config = load_config(["dataset=cifar10", "model=resnet19", "time_steps=2"])
    torch.manual_seed(0)
    model = build_model(config).to(device, memory_format=torch.channels_last)
    optimizer, criterion = build_optimizer(config.optimizer, model), build_loss(config.loss)
    size = RESNET_BATCH if device.type == "cpu" else BATCH
    inputs = torch.randn(size, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (size,), device=device)
    times = []
    for step in range(RESNET_STEPS + 1):
        _wait(device)
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(inputs)
        criterion(logits, labels).backward()
        optimizer.step()
        _wait(device)
        if step:
            times.append(time.perf_counter() - start)
    return size / statistics.median(times)


def median_ms(work: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def compare_event_files(shared: Path, rounds: int) -> None:
    """Print event files per second: ours, and tonic's for N-MNIST (tonic's reader of AEDAT 2.0 is broken)."""
    from tonic.datasets import NMNIST
    from tonic.io import read_mnist_file

    def by_tonic(content: bytes) -> Any:
        return read_mnist_file(io.BytesIO(content), NMNIST.dtype, is_stream=True)

    for archive, ending, most in (("nmnist_1100.zip", ".bin", 200), ("dvs128_objects.zip", ".aedat", 4)):
        if not (shared / archive).is_file():
            continue
        with zipfile.ZipFile(shared / archive) as packed:
            names = [name for name in packed.namelist() if name.endswith(ending)]
            files = [packed.read(name) for name in names[:most]]
        readers: dict[str, Callable[[bytes], Any]] = {"ours": partial(read_recording, f"x{ending}")}
        if ending == ".bin":
            readers["tonic"] = by_tonic
        times: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(rounds):
            for name, read in readers.items():
                times[name].append(median_ms(partial(read_all, read, files), 1) / 1000 / len(files))
        events = sum(len(read_recording(f"x{ending}", content)) for content in files) / len(files)
        print(f"  {archive}, {events:,.0f} events per file")
        for name, taken in times.items():
            a_file = statistics.median(taken)
            print(f"    {name:<8} {1 / a_file:>8,.0f} files/s, {events / a_file / 1e6:>6.1f} million events/s")


def read_all(read: Callable[[bytes], Any], files: list[bytes]) -> None:
    for content in files:
        read(content)


def compare_jpeg(shared: Path, rounds: int) -> None:
    """Print milliseconds per image to decode, and to decode and crop to 224, full-size and capped; one thread."""
    archive = shared / "imagenet_sample_20.zip"
    if not archive.is_file():
        return
    with zipfile.ZipFile(archive) as packed:
        full = [packed.read(name) for name in packed.namelist() if name.endswith(".JPEG")]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def pil(content: bytes, draft: bool = False) -> Image.Image:
        picture = Image.open(io.BytesIO(content))
        if draft:
            picture.draft("RGB", (224, 224))
        return picture.convert("RGB")

    def torchvision(content: bytes) -> torch.Tensor:
        return decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)

    def pil_crop(content: bytes) -> Image.Image:
        picture = pil(content)
        width, height = picture.size
        box = (width // 8, height // 8, width * 7 // 8, height * 7 // 8)
        return picture.crop(box).resize((224, 224), Image.Resampling.BILINEAR)

    def torchvision_crop(content: bytes) -> torch.Tensor:
        picture = torchvision(content)
        height, width = picture.shape[1:]
        part = picture[:, height // 8 : height * 7 // 8, width // 8 : width * 7 // 8]
        return TF.resize(part, [224, 224], antialias=True)

    candidates: dict[str, Callable[[bytes], Any]] = {
        "PIL": pil,
        "PIL, draft mode": lambda content: pil(content, draft=True),
        "torchvision": torchvision,
        "PIL + crop": pil_crop,
        "torchvision + crop": torchvision_crop,
    }
    print("\nImageNet JPEG, ms per image, one thread" + " " * 13 + "original   shorter side capped at 352")
    kinds = (full, [encode(content, 352) for content in full])
    times: dict[str, list[list[float]]] = {name: [[], []] for name in candidates}
    for _ in range(rounds):
        for name, work in candidates.items():
            for taken, files in zip(times[name], kinds, strict=True):
                taken.append(median_ms(partial(read_all, work, files), 1) / len(files))
    for name, (found, capped) in times.items():
        print(f"  {name:<48} {statistics.median(found):6.2f}   {statistics.median(capped):6.2f}")
    torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--data-dir", type=Path, default=root / "data", help="folder of prepared data sets")
    parser.add_argument(
        "--shared", type=Path, default=root.parent / "shared" / "data", help="folder of archives to decode"
    )
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples, opener = cifar10(options.data_dir, options.shared)
    ours = compare_feeding(samples, options.rounds, device)
    if opener is not None:
        print(f"\nOpening the prepared CIFAR-10: {median_ms(opener, 20):.1f} ms ({len(samples.labels):,} images)")
    print("\nEvent files decoded, one thread", flush=True)
    compare_event_files(options.shared, options.rounds)
    compare_jpeg(options.shared, options.rounds)
    for precision in ("fp32", "bf16"):
        consumed = resnet19_training(device, precision)
        print(f"\nTraining ResNet-19 (full width, T = 2, {precision}) consumes {consumed:,.2f} images/s: ", end="")
        print(f"fed {ours / consumed:,.0f} times as fast", flush=True)


if __name__ == "__main__":
    main()
