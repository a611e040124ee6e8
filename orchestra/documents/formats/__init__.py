"""Readers of single formats. Each has a function `read(path, source) -> FileContent` that imports its library."""
