"""The solver of arithmetic word problems."""
