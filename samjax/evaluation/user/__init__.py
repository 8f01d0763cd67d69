"""The simulated user: where the next click goes."""
