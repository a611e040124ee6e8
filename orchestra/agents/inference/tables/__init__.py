"""The table reader: encoding, choice of rows, columns and operations, conditions, and units."""
