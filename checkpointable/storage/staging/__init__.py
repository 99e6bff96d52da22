"""The copy of the state in memory, from which a file is written while training continues."""
