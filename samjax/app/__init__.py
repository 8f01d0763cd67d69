"""The interactive page: a server of one machine, and what it keeps on disk. Nothing of the model is computed here."""
