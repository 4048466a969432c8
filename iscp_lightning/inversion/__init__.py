"""Feedforward inversion: images from what a classifier says of them (Teterwak et al. 2021)."""
