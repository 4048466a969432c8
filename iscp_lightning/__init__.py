"""Class-wise patterns in the input space of image classifiers."""

__version__ = "0.1.0"
