"""What ``vtp run`` does with a composed configuration: build the parts, train, evaluate, report.

    launch.py   one process or several: seeds, threads, device, and the traceback of what fails
    check.py    what can be refused before anything is built
    start.py    the checkpoint that is evaluated, and what it says about the task
    tasks.py    several tasks on one checkpoint
    folder.py   RunFolder: the files that say what was asked and how it ended
    data.py     RunData: reader, loaders, what is on the disk
    run.py      Run: data set -> task -> model, then train, evaluate, predict

Nothing here knows a data set, an encoder or an objective by name.
"""
