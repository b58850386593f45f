from vtp import hookimpl


@hookimpl
def vtp_register_datasets(register):
    register("folderset", "folderset.reader:FolderSet")
