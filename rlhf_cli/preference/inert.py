"""Make text of unknown origin harmless on a terminal, and visible: nothing moves the cursor or hides the rest."""

import unicodedata

# Control, format (bidi, zero width, tags), surrogate, private use; line and paragraph separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_KEPT = {"\n", "\u200c", "\u200d"}  # Persian and emoji need the zero-width joiners


def inert(text: str) -> str:
    """Return `text` with its line breaks; tabs are four spaces, other control characters are shown as symbols.

    C0 controls become their pictures (ESC is ␛), the rest their code (the right-to-left override is ⟨202E⟩).
    """
    return "".join(map(_visible, text.replace("\r\n", "\n").replace("\t", "    ")))


def _visible(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨{code:04X}⟩"
