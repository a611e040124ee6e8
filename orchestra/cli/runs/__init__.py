"""Commands on runs of the journal."""
