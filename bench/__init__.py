"""Measurements of the real program, each with the command that gives it."""
