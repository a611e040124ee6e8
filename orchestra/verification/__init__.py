"""Verification: checks, their verdicts, and acceptance. Pure: nothing here asks a model or reads a clock."""
