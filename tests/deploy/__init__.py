"""Deployment, against a management API on loopback that checks every body and keeps state."""
