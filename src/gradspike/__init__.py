"""gradspike: spiking neural networks with pluggable surrogate-gradient methods, compared fairly."""

__version__ = "0.1.0"
