"""What a checkpoint needs for an exact resume beside what Lightning saves: how it is captured, and restored."""
