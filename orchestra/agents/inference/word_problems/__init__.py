"""The solver of arithmetic word problems: quantities of a text, and a head that combines them."""

__all__ = ["quantities", "solver"]
