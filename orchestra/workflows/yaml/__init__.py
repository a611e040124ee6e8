"""Workflow files: YAML to graph and back."""
