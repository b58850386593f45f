from vtp import hookimpl


@hookimpl
def vtp_register_encoders(register):
    register("perceiver", "perceiver.fusion:Perceiver", slot="fusion")
