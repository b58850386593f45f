"""What vtp-plugin-snps3 offers."""

from __future__ import annotations
