"""Reading of plain text: quotes, keywords, arithmetic, and numbers with dates, units and currencies."""

__all__ = ["arithmetic", "keywords", "numbers", "quotes"]
