"""Using a model: what ``vtp.load`` gives, and what the commands around it do.

    loading.py   a run, a folder, options or a name on the hub -> a model
    model.py     Model: encode, similarity, answer, caption, save, push_to_hub
    inputs.py    paths, spans and arrays -> samples
    search.py    a table and its model: what is found, and how surely
    card.py      the model card: what it was trained on, how it was measured, what it cannot do

Nothing of this decodes or preprocesses: that is what :mod:`vtp.run.data` and :mod:`vtp.eval.evaluator` do for a run.
"""
