"""Figures, each with the protocol that it was measured by."""
