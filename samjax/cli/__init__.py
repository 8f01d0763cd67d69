"""The command `samjax`."""
