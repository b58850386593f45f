from vtp import hookimpl


@hookimpl
def vtp_register_objectives(register):
    register("sigmoid", "vtp_sigmoid.objective:Sigmoid")
