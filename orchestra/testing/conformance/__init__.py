"""Conformance tests for implementations of the journal."""
