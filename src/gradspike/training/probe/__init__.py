"""The probe: measures each spiking layer during training."""
