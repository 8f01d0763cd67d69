"""Features of photos that are computed once and kept, where nothing that makes them is trained."""
