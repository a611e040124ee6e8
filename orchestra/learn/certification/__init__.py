"""Certification: labelled answers, attempts and audits, which certificates are computed from."""
