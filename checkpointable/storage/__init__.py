"""How bytes become durable: the archive with its metadata, the commit, the directory."""
