"""Remarks on recording quality out of captions, leaving whole sentences."""

from __future__ import annotations

import re

_GRADE = (
    r"(?:(?:very|really|extremely|quite|rather|relatively|a bit|slightly|somewhat|generally|fairly|pretty) )*"
    r"(?:low|lower|poor|bad|inferior|average|mediocre|medium|terrible|awful|deteriorated|degraded|amateurish|subpar)"
)
_MEDIUM = r"(?:overall |song )?(?:audio|sound|recording|music|video|song|overall)"
_QUALITY = rf"{_GRADE}[ -]{{1,2}}(?:{_MEDIUM}[ -]{{1,2}})?(?:quality|fidelity)"
_STATE = (
    rf"(?:{_GRADE} in quality|of (?:an? )?{_QUALITY}|{_GRADE}|noisy|(?:in )?mono|muffled|muddled|muddy|hissy|crackly|"
    r"thin|tinny|boomy|unbalanced|distorted|unclear|not (?:that |very |so )?(?:great|good|clear))"
)
_DEGREE = r"(?:(?:a bit|a little|very|really|quite|rather|slightly|somewhat|generally|also|overall|definitely|so) )*"
_STATES = rf"{_DEGREE}{_STATE}(?:(?:, and|,| and| but) {_DEGREE}{_STATE}\b)*"
_BECAUSE = (
    r"(?:,? (?:as|since|because) (?:it was|it is|it's|it’s|the recording is) "
    r"(?:(?! (?:and|but) (?:it|there|the)\b)[\w'’ -])+)?"
)
_MAIN = (
    rf"(?:the |this )?(?:(?:{_MEDIUM}[ -])?(?:audio|recording|quality|fidelity|mix))"
    r"(?: of (?:the|this) (?:song|recording|audio|music|piece|track))?"
)
_IS = r"(?:is|was|sounds|seems|seems to be)"
_REMARK = rf"{_MAIN} {_IS} {_STATES}\b{_BECAUSE}"

_WHOLE = re.compile(
    rf"(?:but |and |although |while |overall,? |however,? )?(?:{_REMARK}|it {_IS} {_STATES}{_BECAUSE}|"
    rf"this {_IS} (?:an? )?(?:{_QUALITY}|noisy|muffled|mono) (?:audio |sound |home |live )?recording|"
    rf"(?:this|the|it)(?: \w+){{0,2}} (?:has|is of|is in|with) (?:an? )?{_QUALITY}|{_QUALITY}(?: recording)?|"
    rf"this(?: song| audio| clip)? (?:is|seems to be|appears to be|sounds like) (?:an? )?amateur(?: \w+)? recording"
    rf"(?: and (?:is )?of {_QUALITY})?"
    r")[.!,]?",
    re.IGNORECASE,
)
"""A sentence that says nothing else."""

_HEAD = re.compile(
    rf"(?P<main>{_MAIN}|it) (?P<verb>{_IS}) {_STATES}\b{_BECAUSE}(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
_NEW_CLAUSE = re.compile(
    r"[ ,-]*(?:and|but|although|yet|while|,)[ ,]+(?P<clause>(?:it|there|the|this|these|you|its|some|we|one)\b.*)",
    re.IGNORECASE | re.DOTALL,
)
_MORE_STATES = re.compile(r"(?:,|,? and|,? but)(?: also| overall)? (?P<states>\w.*)", re.IGNORECASE | re.DOTALL)

_VERB = r"(?:may|might|can|could|has|contains|features|includes|is|was|sounds)\b"

_TAIL = re.compile(
    rf"(?:,? (?:and|but|while|although|even though|though|as|since|because|with)|,|;) (?:overall,? )?(?:{_REMARK}|"
    rf"(?:with |has |has an? |is |it is |it's )?(?:of )?(?:an? )?(?:{_QUALITY}(?: audio| recording)?|"
    r"amateur (?:production|recording)))(?=[.,;!]|$)",
    re.IGNORECASE,
)
_EVEN_THOUGH = re.compile(rf"^(?:even though|although|though|while) {_REMARK}, ", re.IGNORECASE)
_WITH = re.compile(rf",? (?:with|in|of) (?:an? )?{_QUALITY}(?: recording)?(?=[.,;!]|$| but )", re.IGNORECASE)
_HAS_AND = re.compile(rf"\b(has|features|with) (?:an? )?{_QUALITY} (?:with|and|but)(?: has)? ", re.IGNORECASE)
_NOUN = r"(?:recordings?|audio|song|music|track|video|clip|tune|piece|production|live|instrumental|performance)\b"
_BEFORE_VERB = re.compile(rf"\b(an?|the|this) (?:noisy,? )?{_QUALITY},? (?=features?\b|contains?\b|consists?\b)", re.I)
_BEFORE_NOUN = re.compile(
    rf"(?:, )?\b(?:{_QUALITY},?|noisy|muffled|mono|amateur)(?: and(?= (?:noisy|mono|muffled|{_GRADE})))? "
    rf"(?=(?:[a-z][\w-]* ){{0,2}}{_NOUN})",
    re.IGNORECASE,
)

_BROKEN = re.compile(
    r"^(?:this|it|the \w+(?: \w+)?) (?:and|with|as|but|-)(?: |$)|"
    r"\b(?:the of|because of the recording)\b|\b(?:is|sounds|has|and|with|the) (?:as|probably|and|but|-)(?: |$)",
    re.IGNORECASE,
)
"""What a removal may leave where the grammar was another than foreseen."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_WORTH_A_LOOK = re.compile(r"quality|fidelity|noisy|\bmono\b|amateur|muffled|muddled|recording|\baudio\b|\bmix\b", re.I)


def remove_quality(caption: str) -> str:
    """The caption without remarks on recording quality: sentences, clauses and adjectives, grammar kept.

    'The low quality recording features a flute. The recording is noisy.' -> 'The recording features a flute.'
    A caption that says nothing else is returned as it is.
    """
    if not _WORTH_A_LOOK.search(caption):
        return caption
    kept = [mended for sentence in _SENTENCE.split(caption.strip()) if (mended := _mend(sentence))]
    return " ".join(kept) or caption


def _mend(sentence: str) -> str:
    """A sentence without its remarks; '' when it was nothing else."""
    if _WHOLE.fullmatch(sentence.strip()):
        return ""
    mended = _without_head(_EVEN_THOUGH.sub("", sentence))
    mended, num_tails = _TAIL.subn("", mended)
    if num_tails:
        # A list that lost its last member: 'jazzy, funky, boomy' -> 'jazzy, funky and boomy'.
        mended = re.sub(r", (\w+)([.!]?)$", r" and \1\2", mended)
    mended = _HAS_AND.sub(r"\1 ", _WITH.sub("", mended))
    mended = _BEFORE_NOUN.sub(
        lambda m: " " if m.group().startswith(",") else "", _BEFORE_VERB.sub(r"\1 recording ", mended)
    )
    return sentence if mended == sentence else _mend(_tidy(mended, sentence))


def _without_head(sentence: str) -> str:
    """What a sentence says after it began with a remark."""
    head = _HEAD.match(sentence)
    if head is None:
        return sentence
    if clause := _NEW_CLAUSE.fullmatch(head["rest"]):
        return clause["clause"]
    states = _MORE_STATES.fullmatch(head["rest"])
    if states and not re.search(r"quality|fidelity|mix", head["main"], re.IGNORECASE):
        if re.match(r"(?:since|because|as|so the)\b", states["states"], re.IGNORECASE):
            return ""
        verb = "" if re.match(_VERB, states["states"], re.IGNORECASE) else f"{head['verb']} "
        return f"{head['main']} {verb}{states['states']}"
    # What is left explains the remark ('so the music is incoherent', 'with ambient crowd noise').
    return "" if re.search(r"quality|fidelity|mix", head["main"], re.IGNORECASE) else sentence


def _tidy(text: str, original: str) -> str:
    """Articles, spaces, capitals and the full stop after a removal."""
    text = re.sub(r"\s+([.,;!?])", r"\1", re.sub(r"\s{2,}", " ", text)).strip(" ,;-")
    text = re.sub(r"\b([Aa])n (?=[bcdfgjklmnpqrstvwxyz])", r"\1 ", text)
    text = re.sub(
        r"\b([Aa]) (?=(?:amateur|audio|instrumental|electr|acoustic|old |indian|organ|accordion)\w*)", r"\1n ", text
    )
    text = re.sub(r"^(?=recording (?:features|of|contains))", "the ", text, flags=re.IGNORECASE)
    if len(re.findall(r"\w+", text)) < 3 or (_BROKEN.search(text) and not _BROKEN.search(original)):
        return ""
    if not text.endswith((".", "!", "?")) and original.rstrip().endswith((".", ",")):
        text += "."
    return text[0].upper() + text[1:]
