"""Pure decisions: when to save, which files stay, what they are called. No torch, no Lightning, no file in here."""
