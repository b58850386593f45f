from vtp import hookimpl


@hookimpl
def vtp_register_objectives(register):
    register("clipcls", "clipcls.objective:ClipCls")


@hookimpl
def vtp_register_tasks(register):
    register("clipcls", "clipcls.task:ClipCls")


@hookimpl
def vtp_register_forms(register):
    register("clipcls", "clipcls.task:lines", counted="tagged")
