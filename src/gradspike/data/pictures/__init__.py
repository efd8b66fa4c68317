"""Pictures: decoding, resizing, encoded storage."""
