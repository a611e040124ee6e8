"""The solver of arithmetic word problems: quantities of a text, and a head that combines them."""
