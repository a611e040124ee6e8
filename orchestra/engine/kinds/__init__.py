"""Node kinds: one small machine each, from a unit of work to the next proposal."""
