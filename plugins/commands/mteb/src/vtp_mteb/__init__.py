"""A checkpoint of vtp as a model of mteb (arXiv:2210.07316), for its tasks of video, pictures, sound and text.

    encoder.py   MTEBModel: what mteb asks for embeddings
    rows.py      rows of mteb's data sets as what vtp reads
    command.py   vtp mteb MODEL TASK ...

Nothing heavy is imported here.
"""

__version__ = "0.1.0"
