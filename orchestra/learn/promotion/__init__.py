"""Promotion of trained candidates to the agents of a project."""
