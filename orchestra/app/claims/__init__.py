"""Claims: the parts of an output with their evidence, attribution and lineage."""
