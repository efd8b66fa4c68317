"""Options of the simulated event camera."""

from __future__ import annotations

from pydantic import Field

from gradspike.registry import Strict


class CameraConfig(Strict):
    """Properties of the sensor. Defaults lie in the range that is reported for DVS128-class sensors."""

    threshold: float = Field(default=0.4, ge=0.02, le=4.0)
    """Change of the natural logarithm of intensity that makes a pixel fire once (0.4 is a contrast of about 49 %)."""
    mismatch: float = Field(default=0.04, ge=0.0, le=0.3)
    """Standard deviation of the threshold over the pixels, relative to the threshold; a fixed pattern of the sensor."""
    noise_hz: float = Field(default=1.0, ge=0.0, le=1000.0)
    """Rate of noise events in Hz per pixel (a Poisson process, either polarity with equal chance)."""
    refractory_us: int = Field(default=1000, ge=0, le=1_000_000)
    """Time in microseconds after an event during which the same pixel stays silent."""
    dark_level: float = Field(default=0.1, ge=0.001, le=1.0)
    """Light that a pixel gets from a black scene, as a fraction of white; bounds the logarithm, as stray light does."""
    sensor_seed: int = Field(default=0, ge=0, lt=2**31)
    """Which sensor it is: seeds its threshold pattern and its noise. It has nothing to do with the seed of a run."""
