"""Certificates: statistical guarantees for accepted outputs, and their files."""
