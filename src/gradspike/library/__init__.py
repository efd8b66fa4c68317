"""The library: trained networks, layers and streams for one's own Python code. See docs/library.md."""
