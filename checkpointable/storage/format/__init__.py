"""The bytes of a checkpoint file: the zip archive that torch.save writes, its checksums, and the metadata member."""
