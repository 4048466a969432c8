"""What a mistake is told: one line that names the argument, what was given and what is allowed.

The parser explains a mistake by the types that it tried, over many lines; one is made from them.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

PACKAGE = Path(__file__).parent
WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "list": "a list",
    "NoneType": "null",
}
TYPE = re.compile(r"Expected an? (?:<class ')?([\w.]+)(?:'>)?")
LITERAL = re.compile(r"Expected a typing\.Literal(\[.*\])")
GIVEN = re.compile(r"(?:Given value: |Got value: )(.*?)(?=\. Got value: |$)")
KEY = re.compile(r'^Parser key "[^"]+"(?: element \d+)?: ?')
NESTED = re.compile(r"NestedArg\(key='([^']+)', val=(.*)\)$")
NOISE = re.compile(
    r"Does not validate against|Subtypes: |Errors:$|Given value|Expected a path but|"
    r"Subclass types expect|a class path \(str\)|a dict with|Not a valid subclass|"
    r"Problem with given class_path|Type typing\.Callable|Expected a torch\.|"
    r"Expected a dot import path"
)


def fail(message: str) -> NoReturn:
    """Leave with the exit code and style of a command-line error."""
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(2)


def mistake(error: BaseException) -> str | None:
    """Return what to tell about an error in one line, or None if it is no mistake of the user's.

    A mistake is what this package, Lightning or the parser says of an argument.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException  # seconds to load

    if not isinstance(error, (ValueError, TypeError, MisconfigurationException)):
        return None
    for cause in causes(error):
        if isinstance(cause, (ValueError, MisconfigurationException)) and (
            PACKAGE in raised_in(cause).parents or isinstance(cause, MisconfigurationException)
        ):
            return first_lines(str(cause))
    return one_line(str(error)) if "jsonargparse" in raised_in(error).parts else None


def raised_in(error: BaseException) -> Path:
    """Return the path of the code that raised an error."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return Path(frames[-1][0].f_code.co_filename) if frames else Path()


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from, the first cause first."""
    inner = error.__cause__ or error.__context__
    if inner is not None:
        yield from causes(inner)
    yield error


def first_lines(text: str) -> str:
    """Return a text as one line."""
    return " ".join(text.split())


def one_line(message: str, options: Iterable[str] = (), command: str = "") -> str:
    """Return what the parser says of a mistake as one line.

    Args:
        message: The parser's explanation.
        options: The options that there are, for suggestions.
        command: The command that they are options of.
    """
    if empty := re.match(r"argument (--[\w.]+): expected (.*)", message):
        return f"`{empty[1]}` needs a value: {empty[2]}"
    if unknown := re.match(r"unrecognized arguments: (--[^\s=]+)", message):
        return f"unknown option `{unknown[1]}`{suggestion(unknown[1], options)}"
    if unknown := re.match(r"Option '([\w.]+)' is not accepted", message):
        near = suggestion(unknown[1], [name.lstrip("-") for name in options])
        return f"`{unknown[1]}` is no option of {command}{near}"
    if missing := re.search(r"the following arguments are required: (.*)", message):
        name = join([*keys_of(message), missing[1].split(".", 1)[-1]])
        earlier = name.startswith("model") and "--from" in options
        where = ": give it, or `--from` a run or a weights file" if earlier else ""
        return f"`{name}` is missing{where}"
    keys = keys_of(message)
    if not keys:
        return first_lines(message)
    if nested := re.search(r"is abstract.*NestedArg\(key='([\w.]+)'", message, re.S):
        return f"`{join(keys)}.{nested[1]}` needs `{join(keys)}` first: which class is meant"
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    value = given_value(lines)
    wanted, reasons = [], []
    for line in lines:
        text = GIVEN.sub("", re.sub(r'^Parser key "[^"]+"(?: element \d+)?: ?', "", line)).strip(
            " ."
        )
        if text in ("", "Expected a <class 'NoneType'>") or NOISE.match(text):
            continue
        if unknown := re.match(r"Option '([\w.]+)' is not accepted", text):
            return unknown_option(unknown[1], message)
        if literal := LITERAL.match(text):
            wanted += [str(item) for item in ast.literal_eval(literal[1])]
        elif kind := TYPE.match(text):
            wanted.append(WORDS.get(kind[1], kind[1].rsplit(".", 1)[-1]))
        else:
            reasons.append(re.sub(r"^Not of type \w+: ", "", text))
    name = f"`{join(keys)}`" + ("" if value is None else f"={value}")
    if wanted and not (reasons and any("`" in reason for reason in reasons)):
        wanted = list(dict.fromkeys(wanted))
        near = suggestion(str(value), wanted)
        return f"{name} must be {'one of ' if len(wanted) > 1 else ''}{', '.join(wanted)}{near}"
    return f"{name}: {first_lines('; '.join(reasons)) or 'not allowed'}"


def keys_of(message: str) -> list[str]:
    """Return the names of the argument that is wrong, from the outermost to the innermost."""
    return re.findall(r'Parser key "([^"]+)"', message)


def join(keys: Sequence[str]) -> str:
    """Return the whole name of an argument as it is typed."""
    return ".".join(keys) or "model"


def given_value(lines: Sequence[str]) -> str | None:
    """Return the innermost value that the parser's lines say was given."""
    for line in reversed(lines):
        for found in GIVEN.findall(line):
            if nested := NESTED.match(found):
                return nested[2].strip("'\"")
            if not found.startswith(("Namespace(", "{")):
                return str(found).strip("'\"")
    return None


def unknown_option(option: str, message: str) -> str:
    """Return the line for an argument that a class does not have."""
    path = re.findall(r"class_path '([\w.]+)'", message)[-1]
    cls = loaded(path)
    parameters = [
        name
        for base in inspect.getmro(cls)
        if "__init__" in vars(base)
        for name in inspect.signature(base).parameters
    ]
    known = list(dict.fromkeys(name for name in parameters if name not in ("args", "kwargs")))
    near = suggestion(option, known) or f"; it has {', '.join(known)}"
    return f"{cls.__name__} has no argument `{option}`{near}"


def loaded(path: str) -> Any:  # noqa: ANN401
    """Return the class of a dotted path whose module has been imported, else `object`."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, object)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean NAME?` with the nearest known name, or nothing if none is near."""
    lowered = {word.lower(): word for word in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f"; did you mean {lowered[near[0]]}?" if near else ""
