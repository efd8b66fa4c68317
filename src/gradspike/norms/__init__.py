"""Norms that turn a layer's input into its current: `tdbn`, over all ranks in `synced`, their options in `options`."""
