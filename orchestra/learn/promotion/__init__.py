"""Promotion: candidates, and the replacement of what an agent has learnt."""
