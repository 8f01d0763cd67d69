"""Finding and naming all objects of a photo without prompts: what a task for that trains by."""
