from vtp import hookimpl


@hookimpl
def vtp_register_objectives(register):
    register("trialign", "marble.objective:TriAlign")
