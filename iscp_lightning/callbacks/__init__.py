"""Measurements at chosen epochs and after a test."""
