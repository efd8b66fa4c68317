"""NeuroBench's metrics by name, and how tables show them. Imports nothing heavy. `neurobench` measures them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One metric: its name in records, its key for `gradspike compare --columns`, its heading and the factor of it."""

    name: str
    key: str
    head: str
    factor: float = 1.0


FOOTPRINT = Metric("footprint", "footprint", "footprint (KiB)", 1 / 1024)
CONNECTIONS = Metric("connection_sparsity", "connections", "connection sparsity (%)", 100.0)
ACTIVATIONS = Metric("activation_sparsity", "activations", "activation sparsity (%)", 100.0)
DENSE = Metric("dense_synops", "dense", "dense synaptic operations")
MACS = Metric("effective_macs", "macs", "effective MACs")
ACS = Metric("effective_acs", "acs", "effective ACs")
UPDATES = Metric("membrane_updates", "updates", "membrane updates")

METRICS = (FOOTPRINT, CONNECTIONS, ACTIVATIONS, DENSE, MACS, ACS, UPDATES)
