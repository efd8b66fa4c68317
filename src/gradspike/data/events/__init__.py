"""Event recordings: decoders of file formats, windows, frames."""
