"""What the built-in tasks package offers."""

from __future__ import annotations

from vtp.hookspecs import Register, hookimpl


@hookimpl
def vtp_register_tasks(register: Register) -> None:
    register("captioning", "vtp_tasks.captioning:Captioning")
    register("classification", "vtp_tasks.classification:Classification")
    register("moment_retrieval", "vtp_tasks.moments:MomentRetrieval")
    register("multiple_choice", "vtp_tasks.multiple_choice:MultipleChoice")
    register("pretrain", "vtp_tasks.pretrain:Pretrain")
    register("qa", "vtp_tasks.qa:QuestionAnswering")
    register("retrieval", "vtp_tasks.retrieval:Retrieval")


@hookimpl
def vtp_register_forms(register: Register) -> None:
    register("caption", "vtp_tasks.forms:captions", counted="captions")
    register("classification", "vtp_tasks.forms:classes", counted="items")
    register("moments", "vtp_tasks.forms:moments", counted="moments")
    register("mc", "vtp_tasks.forms:choices", counted="choices")
    register("qa", "vtp_tasks.forms:questions", counted="questions")
    register("retrieval", "vtp_tasks.forms:queries", counted="queries")
