"""Reading of plain text: quotes, keywords, arithmetic and numbers."""
