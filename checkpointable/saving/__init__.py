"""One fit that saves itself: what is due, the safe point at which it is saved, and the files that are kept."""
