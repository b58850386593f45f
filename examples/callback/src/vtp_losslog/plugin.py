from vtp import hookimpl


@hookimpl
def vtp_register_callbacks(register):
    register("losslog", "vtp_losslog.losslog:LossLog")
