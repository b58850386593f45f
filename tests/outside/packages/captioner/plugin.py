from vtp import hookimpl


@hookimpl
def vtp_register_objectives(register):
    register("captioner", "captioner.objective:Captioner")
