"""What a workflow is, and how it is read, built, compiled and drawn."""
