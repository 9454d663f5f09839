import pytest

from interp.data.docstrings import docstrings

_SOURCE = b'''# -*- coding: latin-1 -*-
"""Module caf\xe9."""
raise RuntimeError("never run")

class A:
    """A class.

    Left.
        Indented.
    """
    async def m(self):
        """A method."""
        def hidden():
            """Out of reach."""
    class B:
        def n(self): """Inner method."""

def f(x: "int" = """not a docstring"""):
    y = """an ordinary string"""

if True:
    def g():
        """In a branch."""
'''


def test_kinds_texts_encoding_and_that_nothing_is_run():
    assert list(docstrings(_SOURCE)) == [
        ("module", "Module café."),
        ("class", "A class.\n\nLeft.\n    Indented."),
        ("method", "A method."),
        ("method", "Inner method."),
    ]


def test_source_of_another_python_is_a_syntax_error():
    for source in (b'"""x"""\nprint "old"', b'"""x"""\0'):
        with pytest.raises(SyntaxError):
            list(docstrings(source))
