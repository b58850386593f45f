"""Words of a caption as the metrics of COCO captions count them: tokens in the style of the Penn Treebank, in lower
case, without punctuation.

Written from the observed behaviour of the tokenizer that those metrics use (Stanford CoreNLP 3.4.1, ``PTBTokenizer
-preserveLines -lowerCase``): at every place the longest of the forms below is a token. It gives the same tokens for all
80,827 captions of MSVD and all but a few of two hundred thousand other sentences (docs/evaluation.md).
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["tokens"]

_DROPPED = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
_SAME = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "\u00a3": "#", "\u20ac": "$", "\u00a2": "cents",
    "\u00bd": "1/2", "\u00bc": "1/4", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3",
    '"': "''", "\u2018": "`", "\u2019": "'", "\u201c": "``", "\u201d": "''", "\u00ab": "``", "\u00bb": "''",
    "\u2039": "`", "\u203a": "'", "\u2026": "...", "\u2013": "--", "\u2014": "--", "\u2015": "--",
}  # fmt: skip
_TWO = {"cannot": "can not", "gonna": "gon na", "wanna": "wan na", "gotta": "got ta", "gimme": "gim me",
        "lemme": "lem me", "'tis": "'t is", "'twas": "'t was"}  # fmt: skip

# Words that keep their period: always, where they begin with a capital letter, before a number
_ALWAYS = """adm al ala alex apr ariz assn atty aug ave bldg blvd brig bros calif capt cf cmdr co col colo conn corp cos
cpl ct dec dept det dr esq est etc ext feb fla fri ft ga gen gov hon inc ind insp intl jan jr jul jun kan ky lt ltd maj
mar md messrs mfg mich minn mlle mme mo mon mont mr mrs ms mt natl neb nev nov oct okla penn plc pres prof pvt rd rep
reps rev rt sen sep sept sgt sq sr st ste supt tel tenn thu thurs tue tues univ va vs vt wed wis wyo"""
_CAPITAL = "ark az del ill la mass miss ore pa tex wash"
_NUMBERED = "art ca fig figs no nos op pp prop"

# Behind a single letter and a full stop they begin another sentence
_STARTS = """A After An As At But He Her Here However If In It Many Now Once One Other Our She Since So
Some Such That The Their Then There These They This We What When While You"""

_L, _A, _Q = r"[^\W\d_]", "[^\\W_\u00bc-\u00be\u2153\u2154]", "['\u2019]"
_END = rf"(?!{_A})"


def _any(words: str) -> str:
    return "|".join(sorted(words.split(), key=len, reverse=True))


_FORMS = [
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"{_A}+(?:[-_/]{_A}+)*",  # t-shirt, 2-on-1, and/or, 1/2
        rf"{_L}{_A}*(?:[.!?]{_L}{_A}*)+",  # a full stop without a space
        r"(?:https?://|www\.)[^\s\"<>|()]*[^\s\"<>|().,!?;:']",
        rf"(?:{_L}{_A}*\.)+(?:com|net|org)/[^\s\"<>|()]*[^\s\"<>|().,!?;:']",
        rf"{_A}[\w.]*@{_A}+(?:\.{_A}+)*",
        rf"[@#]{_L}{_A}*",
        rf"(?:{_L}\.){{2,}}(?!{_L}{_A})",  # a.m., U.S., the letter of a name
        rf"{_L}\.(?! +(?-i:{_any(_STARTS)})(?!{_A}|\.))",
        r"ph\.d\.",
        rf"(?:{_any(_ALWAYS)})\.{_END}",
        rf"(?:{_any(_NUMBERED)})\.(?=\s?\d)",
        r"[-+]?[.,]?\d+(?:[.,:]\d+)*",
        r"\d{1,4} \d{1,4}/\d{1,4}",
        r"(?:\d{2,4}[ -])?(?:\(\d{2,3}\) ?|\d{2,4}[ -])\d{3,4}[ -]\d{3,5}(?!\d)",  # a telephone number
        rf"(?:[dlo]|qu){_Q}{_L}{{2,}}|ma{_Q}am{_END}|c{_Q}mon{_END}|n?e{_Q}er{_END}",
        rf"[yj]{_Q}(?={_L})",
        rf"{_Q}(?:s|re|ve|ll|d|m|em|til|cause){_END}|n{_Q}ts?{_END}",
        rf"{_Q}n{_Q}(?={_L}|\s|$)|{_Q}n{_END}",
        rf"{_Q}(?:tis|twas){_END}",
        rf"{_Q}\d\ds?(?!{_A}|{_Q})",
        r"c\+\+|c#",
        rf"</?{_L}{_A}*>|<{_A}[\w.]*@{_A}+(?:\.{_A}+)*>|<<|>>",
        rf"[:;=]-?[()]|:[dp]{_END}|\^_\^",
        r"\.{3,}|\. \. \.|[!?]{2,}|--+|\*+|''|``",
        r"\S",
    )
] + [
    re.compile(form)
    for form in (
        rf"(?:{_any(_CAPITAL.title())}|{_any(_CAPITAL.upper())})\.{_END}",
        rf"[A-Z]+&[A-Z]+{_END}",
        r"[A-Z]{1,3}\$",
    )
]
_PLAIN = re.compile(r"[a-z]+(?: +[a-z]+)*")


@lru_cache(maxsize=1 << 17)
def tokens(text: str) -> tuple[str, ...]:
    """``"A man's t-shirt, isn't it?"`` -> ``("a", "man", "'s", "t-shirt", "is", "n't", "it")``."""
    text = text.replace("\u00ad", "").strip()
    if _PLAIN.fullmatch(text):
        return tuple(part for word in text.split() for part in _TWO.get(word, word).split())
    found: list[str] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        token = max((match.group() for form in _FORMS if (match := form.match(text, at))), key=len)
        if token.isalpha() and len(token) > 1 and token[-1] in "nN" and _NOT.match(text, at + len(token)):
            token = token[:-1]
        at += len(token)
        found += _written(token)
    return tuple(found)


_NOT = re.compile(rf"{_Q}ts?{_END}", re.IGNORECASE)


def _written(token: str) -> list[str]:
    """How a token is written; none for punctuation."""
    token = token.lower().replace("\u2019", "'") if len(token) > 1 else token.lower()
    if token in _TWO:
        return _TWO[token].split()
    if token in _SAME:
        token = _SAME[token]
    elif len(token) > 1:
        for bracket in "()":
            token = token.replace(bracket, _SAME[bracket])
        token = token.replace(" ", "\u00a0")  # inside of a number
    if token[:3] == "..." or token == ".\u00a0.\u00a0." or token[:2] == "--" or token in _DROPPED:
        return []
    return [token]
