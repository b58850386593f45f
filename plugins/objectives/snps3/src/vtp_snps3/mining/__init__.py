"""``vtp mine-words``: which words of captions are verbs, nouns and adjectives, how often, and which tokens they are.

captions.py     captions of a data set or a file, one after another
taggers.py      counts of (word, part of speech) of some captions, by NLTK, spaCy or jieba
perceptron.py   NLTK's English tagger over many captions at once
counting.py     counts of all captions: in several processes, resumable
rows.py         the rows of a table from counts: tokens, ranks, lemmas
released.py     tables of AntMMF
show.py         what a table holds, printed and as a picture
command.py      the command
"""
