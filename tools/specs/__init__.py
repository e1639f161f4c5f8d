"""Runs the formal models in `specs/` with the Alloy Analyzer, and tries whether they would notice a mistake."""
