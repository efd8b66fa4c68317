"""Commands built on the library. None imports another."""
