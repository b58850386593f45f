"""Crossformer for vtp: video, sound and text fused, with a missing modality as an ordinary state.

Nothing heavy is imported here; the parts are in the modules that ``plugin.py`` names.
"""

__version__ = "0.1.0"
