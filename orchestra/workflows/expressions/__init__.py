"""References and conditions: parser, type checker and evaluation with CEL."""
