"""The table reader: encoding, row and column choice, operations and units."""
