"""The configuration: `schema` (every key), `validate` (mistakes in words), `compose` (Hydra), `recipes`."""
