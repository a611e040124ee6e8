"""The Python DSL: workflow functions traced to a graph."""
