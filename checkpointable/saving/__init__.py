"""One fit that saves itself: what is due, the safe point at which it is saved, and which files are kept."""
