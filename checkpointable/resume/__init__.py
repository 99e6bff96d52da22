"""What a checkpoint carries for going on, beside what Lightning saves."""
