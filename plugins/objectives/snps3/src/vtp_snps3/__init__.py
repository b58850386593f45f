"""SNP-S3 for vtp (arXiv:2401.17773): significant words are masked first and matched one by one with the clip.

Nothing heavy is imported here; the parts are in the modules that ``plugin.py`` names.
"""

__version__ = "0.1.0"
