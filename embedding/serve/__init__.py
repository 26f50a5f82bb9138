"""Transports and life cycle: the RunPod queue, the smoke test, diagnostics."""
