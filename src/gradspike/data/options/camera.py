"""Options of the simulated event camera."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from gradspike.registry import Strict
from gradspike.touches import Touches


class CameraConfig(Strict):
    """Properties of the sensor. The defaults lie in the range reported for sensors like the DVS128."""

    touches: ClassVar[Touches] = Touches.DATA

    threshold: float = Field(default=0.4, ge=0.02, le=4.0)
    """Change in log intensity (natural logarithm) that triggers an event; 0.4 is a contrast of about 49 %."""
    mismatch: float = Field(default=0.04, ge=0.0, le=0.3)
    """Standard deviation of the threshold across pixels, relative to the threshold (fixed-pattern noise)."""
    noise_hz: float = Field(default=1.0, ge=0.0, le=1000.0)
    """Rate of noise events per pixel in Hz (Poisson, both polarities equally likely)."""
    refractory_us: int = Field(default=1000, ge=0, le=1_000_000)
    """Refractory period of a pixel after an event, in microseconds."""
    dark_level: float = Field(default=0.1, ge=0.001, le=1.0)
    """Intensity of a black scene as a fraction of white; it bounds the logarithm, as stray light does."""
    sensor_seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the sensor's threshold pattern and noise, independent of the run's seed."""
