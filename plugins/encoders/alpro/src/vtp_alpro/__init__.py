"""ALPRO (arXiv:2112.09583) for vtp: TimeSformer, BERT and a cross encoder.

Nothing heavy is imported here; the parts are in the modules that ``plugin.py`` names.
"""

__version__ = "0.1.0"
