"""UniVL for vtp: Base-VTP (arXiv:2002.06353), CNVid-VTP and DMAE (arXiv:2309.11082) as one model and its objectives.

Nothing heavy is imported here; the parts are in the modules that ``plugin.py`` names.
"""

__version__ = "0.1.0"
