"""Values are JSON; types are JSON Schema. Everything that passes between nodes is made of these."""
