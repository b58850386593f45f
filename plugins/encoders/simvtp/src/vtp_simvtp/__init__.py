"""SimVTP (arXiv:2212.03490) for vtp: one masked autoencoder for video and text.

Nothing heavy is imported here; the parts are in the modules that ``plugin.py`` names.
"""

__version__ = "0.1.0"
