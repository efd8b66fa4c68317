"""From a validated configuration to a trained, tested and recorded network."""
