"""The command ``checkpointable``: what the reading side knows, from a shell."""
