"""Camera perception for driving: frames in, tracked objects and road out."""

__version__ = "0.1.0"
