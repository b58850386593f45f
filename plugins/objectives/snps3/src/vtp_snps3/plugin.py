"""What vtp-plugin-snps3 offers."""

from __future__ import annotations

from vtp import hookimpl
from vtp.hookspecs import Register


@hookimpl
def vtp_register_objectives(register: Register) -> None:
    """Losses of SNP-S3."""
    register("snps3_lvwm", "vtp_snps3.lvwm:LVWM")
    register("snps3_mssm", "vtp_snps3.mssm:MSSM")


@hookimpl
def vtp_register_commands(register: Register) -> None:
    register("mine-words", "vtp_snps3.mining.command:main", help="tables of nouns, verbs and adjectives of captions")
