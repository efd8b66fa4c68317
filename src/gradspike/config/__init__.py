"""The configuration: `schema` (all keys), `validate` (checks and error messages), `compose` (Hydra), `recipes`."""
