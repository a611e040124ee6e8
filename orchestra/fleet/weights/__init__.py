"""Model weights: download, conversion and storage."""
