"""The engine: facts in, proposals out, and one async shell that carries them out."""
