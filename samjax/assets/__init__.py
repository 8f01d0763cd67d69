"""Files that travel inside the package: the demo photo and its licence."""
