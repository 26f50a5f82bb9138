"""Untrusted input in, safe pixels or tokens out."""
