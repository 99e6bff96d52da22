"""Everything that Lightning keeps private, and the list of names that is checked before a trainer is used."""
