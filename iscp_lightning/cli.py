"""The command line: which command is meant, what `--help` says, how a mistake is told."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from iscp_lightning import __version__, commands
from iscp_lightning.messages import fail, mistake, suggestion

PROGRAM = "python -m iscp_lightning"
OVERVIEW = """\
What has an image classifier learned about a class? Train one, search its patterns, test it.

Commands:
{commands}

Examples:
    {program} fit                       # the demo: no data, no GPU, no account
    {program} search --from runs/NAME   # the patterns of what a run has trained

`{program} COMMAND --help` says what a command takes, `--version` which version this is.
"""


def main(args: Sequence[str] | None = None) -> Any:  # noqa: ANN401
    """Run a command and return what it returns, for a training or measurement its Experiment.

    Args:
        args: Arguments without the program name; None takes the process's own.

    Raises:
        SystemExit: after a mistake, which is told in one line, or a request for help.
    """
    given = sys.argv[1:] if args is None else [str(item) for item in args]
    if said := answer(given):
        sys.stdout.write(said)
        raise SystemExit(0)
    name, *arguments = given
    if name not in commands.names():
        fail(f"`{name}` is no command{suggestion(name, commands.names()) or known()}")
    from iscp_lightning.commands._call import call  # seconds to load

    if args is None:
        warnings.formatwarning = lambda text, kind, *_, **__: f"{kind.__name__}: {text}\n"
    try:
        return call(name, arguments)
    except Exception as error:
        if line := mistake(error):
            fail(line)
        raise


def answer(given: Sequence[str]) -> str | None:
    """Return what is said to a request for help or the version, None if it is none."""
    asks = any(item in ("-h", "--help") for item in given)
    if given[:1] == ["--version"]:
        return f"{PROGRAM} {__version__}\n"
    if given and asks and given[0] in commands.names():
        everything = f"All options: {PROGRAM} {given[0]} {commands.ALL}"
        return f"{commands.words(given[0])}\n\n{everything}\n"
    return overview() if not given or given[0] in ("-h", "--help", commands.ALL) else None


def overview() -> str:
    """Return what the program does, and each command's first line."""
    width = max(map(len, commands.names()))
    lines = [f"    {n:{width}}  {commands.words(n).splitlines()[0]}" for n in commands.names()]
    return OVERVIEW.format(commands="\n".join(lines), program=PROGRAM)


def known() -> str:
    """Return `; they are …` with the names of all commands."""
    return f"; they are {', '.join(commands.names())}"
