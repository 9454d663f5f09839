"""The docstrings of Python source, found by parsing and never by importing."""

import ast
import inspect
import warnings
from collections.abc import Iterator


def docstrings(source: bytes) -> Iterator[tuple[str, str]]:
    """Yield the kind (module, class, function or method) and the cleaned text of each docstring, in source order.

    Definitions inside functions are passed over: their names cannot be reached.

    Args:
        source: One file; its encoding is declared in it or UTF-8.

    Raises:
        SyntaxError: If it is not Python of this version.
    """
    if b'"""' not in source and b"'''" not in source:
        return  # A fifth of the files, and parsing is all the cost. Docstrings in single quotes are too few to pay for.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Others' invalid escapes.
        try:
            tree = ast.parse(source)
        except (ValueError, RecursionError, MemoryError) as error:  # Null bytes; nesting too deep for the parser.
            raise SyntaxError(str(error)) from error
    yield from _found(tree, "module")


def _found(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, kind: str
) -> Iterator[tuple[str, str]]:
    text = ast.get_docstring(node, clean=False)
    if text:
        yield kind, inspect.cleandoc(text)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _found(child, "class")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _found(child, "method" if isinstance(node, ast.ClassDef) else "function")
