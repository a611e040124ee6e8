"""The command `orchestra batch`."""
