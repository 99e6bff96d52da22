"""The reading side: what lies on disk, and which of it to use."""
