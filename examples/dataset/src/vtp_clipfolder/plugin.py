from vtp import hookimpl


@hookimpl
def vtp_register_datasets(register):
    register("clipfolder", "vtp_clipfolder.dataset:ClipFolder")
