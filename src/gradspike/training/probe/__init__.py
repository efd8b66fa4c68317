"""The probe: what every spiking layer does while it trains."""
