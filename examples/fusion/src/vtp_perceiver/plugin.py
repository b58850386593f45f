from vtp import hookimpl


@hookimpl
def vtp_register_encoders(register):
    register("perceiver", "vtp_perceiver.fusion:Perceiver", slot="fusion")
