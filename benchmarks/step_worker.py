"""One candidate of benchmarks/step.py in its own process. It sleeps between requests.

Reads requests from standard input, one JSON object per line, and answers each with a JSON object. {"prepare": setting}
builds network, optimiser and batch, warms up and measures a step's memory; `first` is the processor time of the first
step with what it compiles. {"run": steps} trains that many steps, and {"look": steps} measures host and device in as
many. The process ends at the end of its input.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from gradspike.errors import first_line
from step_profile import MEASURED, allocations, covered, highest_sum

FIXED_SG_WIDTH = 1.0
PEERS = ("spikingjelly", "snntorch")


@dataclass(frozen=True)
class Network:
    """The network to train: overrides of the configuration, time steps and samples. `width` is model.width, None for
    networks without one."""

    title: str
    words: tuple[str, ...]
    time_steps: int
    batch: int
    width: float | None = None

    def described(self) -> str:
        width = "" if self.width is None else f", width {self.width:g}"
        return f"{self.title}, T = {self.time_steps}, batch {self.batch}{width}"


@dataclass(frozen=True)
class Setting:
    """Precision (fp32, bf16) and memory layout (contiguous, channels_last)."""

    precision: str
    layout: str
    deterministic: bool = False
    """Training's own mode (`trainer.deterministic`). On CUDA, the other libraries run without it."""

    @property
    def name(self) -> str:
        return f"{self.precision}-{self.layout}"


@dataclass(frozen=True)
class Candidate:
    """The implementation to measure. kind: relu, ours, research_code, spikingjelly, snntorch."""

    name: str
    kind: str
    engine: str = "eager"
    method: str = "fixed_sg"
    neuron: str = ""
    """Empty: lif with fixed_sg, else the default one."""
    compiled: bool = False
    """torch.compile of the whole network."""
    still: bool = False
    """The input is one image [B, C, H, W], not frames [T, B, C, H, W]."""
    backend: str = ""
    packed: bool = False
    """With trainer.pack_spikes."""
    graphs: bool = False
    """With trainer.cuda_graphs."""


class Training:
    """Network, optimiser, loss and batch of one candidate in one setting."""

    def __init__(self, network: Network, candidate: Candidate, setting: Setting, device_name: str) -> None:
        import torch

        from gradspike.training.kept_memory import keep_released_memory
        from gradspike.training.losses import build_loss
        from gradspike.training.optim import build_optimizer

        self.device = torch.device(device_name)
        self.autocast, self.packs = setting.precision == "bf16", candidate.packed
        config = configuration(network, candidate)
        layout = torch.channels_last if setting.layout == "channels_last" else torch.contiguous_format
        supported = self.device.type == "cpu" or candidate.kind not in PEERS
        torch.use_deterministic_algorithms(setting.deterministic and supported)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # as in training
        if self.device.type == "cpu":
            keep_released_memory()  # as in training; for all candidates
        torch.manual_seed(0)
        model = build_network(config, candidate).to(self.device, memory_format=layout)
        # The same for all: the platform's optimiser, SGD with momentum.
        self.optimizer, self.criterion = build_optimizer(config.optimizer, model), build_loss(config.loss)
        self.inputs = frames(network, candidate, config.dataset, layout, self.device)
        self.labels = torch.randint(0, config.dataset.classes, (network.batch,), device=self.device)
        self.model: Any = compiled(model, candidate) if candidate.compiled else model
        if candidate.graphs:
            from gradspike.training.graphed import GraphedNetwork

            self.model = GraphedNetwork(model, self.model)
        self.plain = model

    def step(self) -> Any:
        """One training step. Returns the loss."""
        import torch

        from gradspike.collected import collect_losses
        from gradspike.packed_spikes import packing

        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast), collect_losses() as extra:
            with packing(self.packs):
                logits = self.model(self.inputs)
            loss = self.criterion(logits, self.labels) + extra.mean()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def seconds(self, steps: int) -> float:
        """Mean seconds per step over `steps` steps."""
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return (time.perf_counter() - start) / steps

    def wait(self) -> None:
        """Wait until the device has finished."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_bytes(self) -> int:
        """The peak number of bytes in tensors during a step, including weights, optimiser state and batch.

        On CUDA, this is the count of torch's allocator; of CUDA graphs, which keep their memory, that of the second
        step, which captures them. On a CPU, the profiler records every allocation and release of torch's allocator with
        its size; the maximum of their running sum in a step is added to the bytes before it. So the number is exact,
        and the same in each run. Memory that a library takes without torch (oneDNN's scratch
        memory) is not counted, for any candidate.
        """
        import torch
        from torch.profiler import ProfilerActivity, profile, record_function

        gc.collect()  # garbage of an earlier setting must not be released in the middle of this step
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            self.wait()
            torch.cuda.reset_peak_memory_stats()
            self.step()
            self.wait()
            return torch.cuda.max_memory_allocated()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            # The profiler knows the sizes only of memory allocated while it runs. Peers keep their neurons' states
            # until the next step, so all releases are known only in the second of two steps.
            self.step()
            gc.collect()
            gc.disable()  # a collection at a random moment would change the number in each run
            try:
                with record_function(MEASURED):
                    self.optimizer.zero_grad(set_to_none=True)
                    self.step()
            finally:
                gc.enable()
        return self.living_bytes() + highest_sum(*allocations(profiler))

    def look(self, steps: int) -> dict[str, Any]:
        """On CUDA: `host`, seconds until a step is issued to an idle device; `busy`, seconds of a step in which a
        kernel or a copy runs; `launches` of a step. Without kernels in the profile, `busy` is None.

        A device that is slower than the host stops it when a thousand launches wait, so `host` is an upper bound.
        """
        from torch.autograd import DeviceType  # type: ignore[attr-defined]
        from torch.profiler import ProfilerActivity, profile

        issued = []
        for _ in range(steps):
            self.wait()
            start = time.perf_counter()
            self.step()
            issued.append(time.perf_counter() - start)
        self.wait()
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(steps):
                self.step()
            self.wait()
        ran = [
            (event.time_range.start, event.time_range.end)
            for event in profiler.events()
            # The optimiser names its step; this is a span of time, not a kernel.
            if event.device_type == DeviceType.CUDA and not event.name.startswith("Optimizer.")
        ]
        busy = covered(ran) / 1e6 / steps if ran else None
        return {"host": min(issued), "busy": busy, "launches": len(ran) / steps if ran else None}

    def living_bytes(self) -> int:
        """Bytes of weights, persistent buffers, optimiser state and batch, each storage once."""
        tensors = [*self.plain.state_dict().values(), self.inputs, self.labels]
        for state in self.optimizer.state.values():
            tensors += [value for value in state.values() if hasattr(value, "untyped_storage")]
        storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
        return sum(storages.values())


def configuration(network: Network, candidate: Candidate) -> Any:
    """The candidate's configuration. Peers compute fixed_sg with a constant decay, so ours does too. Other methods have
    the default neuron, with a learned decay.
    """
    from gradspike.config.compose import load_config

    words = [*network.words, f"time_steps={network.time_steps}", "recipe=none"]
    words += [] if network.width is None else [f"model.width={network.width}"]
    words += [f"method={candidate.method}", f"engine={candidate.engine}", "optimizer=sgd", "optimizer.lr=0.01"]
    neuron = candidate.neuron or ("lif" if candidate.method == "fixed_sg" else "")
    words += [f"neuron={neuron}"] if neuron else []
    words += [f"method.width={FIXED_SG_WIDTH}"] if candidate.method == "fixed_sg" else []
    words += ["model.activation=relu"] if candidate.kind == "relu" else []
    return load_config(words)


def build_network(config: Any, candidate: Candidate) -> Any:
    """Ours, or ours with its spiking layers replaced."""
    from gradspike.training.build import build_model

    network = build_model(config)
    if candidate.kind == "research_code":
        from research_code import ResearchNetwork

        return ResearchNetwork(network, FIXED_SG_WIDTH)
    if candidate.kind == "spikingjelly":
        from peers import spikingjelly_network

        return spikingjelly_network(network, FIXED_SG_WIDTH, candidate.backend)
    if candidate.kind == "snntorch":
        from peers import snntorch_network

        return snntorch_network(network, FIXED_SG_WIDTH)
    return network


def frames(network: Network, candidate: Candidate, dataset: Any, layout: Any, device: Any) -> Any:
    """Counts of events [T, B, C, H, W], new at each step; [B, C, H, W] for a still image.

    Folded into [T * B, C, H, W] (samples first if the candidate needs that), it has the layout `layout`.
    """
    import torch

    steps, batch = (1 if candidate.still else network.time_steps), network.batch
    generator = torch.Generator().manual_seed(1)
    shape = (steps, batch, dataset.channels, dataset.image_size, dataset.image_size)
    counts = torch.randint(0, 3, shape, generator=generator).float()
    swapped = candidate.kind == "research_code"
    counts = counts.transpose(0, 1) if swapped else counts
    folded = counts.flatten(0, 1).to(device, memory_format=layout)
    unfolded = folded.unflatten(0, counts.shape[:2])
    if candidate.still:
        return unfolded[0]
    return unfolded.transpose(0, 1) if swapped else unfolded


def compiled(model: Any, candidate: Candidate) -> Any:
    """torch.compile of the whole network, as with trainer.compile=true."""
    import torch

    from gradspike.training.whole_network import CompiledNetwork

    torch._dynamo.reset()
    if candidate.kind in ("relu", "ours"):
        return CompiledNetwork(model)
    return torch.compile(model, dynamic=False)


def serve(network: Network, candidate: Candidate, device: str, threads: int | None) -> None:
    """Answer requests until the input ends."""
    # Libraries may print, so answers have their own channel.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    training: Training | None = None

    def answer(work: Callable[[], dict[str, Any]]) -> None:
        try:
            result = work()
        except Exception as error:
            result = {"error": reason(error)}
        print(json.dumps(result), file=answers, flush=True)

    def start() -> dict[str, Any]:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        return {"threads": torch.get_num_threads(), "torch": torch.__version__}

    def prepare(setting: Setting) -> dict[str, Any]:
        nonlocal training
        training = None
        began = time.perf_counter()
        training = Training(network, candidate, setting, device)
        used = processor_seconds()
        loss = training.step()
        first = processor_seconds() - used
        peak = training.peak_bytes()
        return {"peak_bytes": peak, "seconds": time.perf_counter() - began, "first": first, "loss": float(loss)}

    def run(steps: int) -> dict[str, Any]:
        assert training is not None
        used = processor_seconds()
        seconds = training.seconds(steps)
        return {"seconds": seconds, "processor": (processor_seconds() - used) / steps}

    def look(steps: int) -> dict[str, Any]:
        assert training is not None
        return training.look(steps)

    answer(start)
    for line in sys.stdin:
        request = json.loads(line)
        if "prepare" in request:
            setting = Setting(**request["prepare"])
            answer(lambda setting=setting: prepare(setting))
        elif "look" in request:
            answer(lambda steps=request["look"]: look(steps))
        else:
            answer(lambda steps=request["run"]: run(steps))


def processor_seconds() -> float:
    """Processor time of this process and of its ended children, such as compilers."""
    return sum(os.times()[:4])


def reason(error: Exception) -> str:
    """The error in one line."""
    said = first_line(error)
    return f"{type(error).__name__}: {said}"[:200] if str(error).strip() else said


def command(
    network: Network, candidate: Candidate, device: str, threads: int | None, python: Sequence[str] = ()
) -> list[str]:
    """The command line of a worker. `python`: the start of a command line that runs a script; default: this Python."""
    task = {"network": asdict(network), "candidate": asdict(candidate), "device": device, "threads": threads}
    return [*(python or [sys.executable]), str(Path(__file__).resolve()), json.dumps(task)]


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    network = Network(**task["network"])
    serve(network, Candidate(**task["candidate"]), task["device"], task["threads"])
