"""What the built-in datasets package offers."""

from vtp import hookimpl


@hookimpl
def vtp_register_datasets(register):
    register("csv", "vtp_datasets.own:OwnData")
    register("msrvtt", "vtp_datasets.msrvtt:MSRVTT")
    register("shapes", "vtp_datasets.shapes:Shapes")
