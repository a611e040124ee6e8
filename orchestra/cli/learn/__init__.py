"""The commands of `orchestra learn`."""
