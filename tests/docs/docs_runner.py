"""Runs the Python blocks of one page, as a program in the directory of a project: `docs_runner.py < blocks`.

Standard input has a JSON list of blocks; standard output gets what went wrong, and nothing else.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import json
import re
import sys
import traceback
from typing import Any

_ID = re.compile(r"\bi[0-9a-f]{32}\b|\bi[0-9a-f]{8}\b")


class Checker(doctest.OutputChecker):
    """Compare the output with the page; ids of tasks differ from run to run."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        want, got = (_ID.sub("i<id>", text.replace("…", "...")) for text in (want, got))
        if want.startswith("pq.errors."):
            # A page shows as much of an error as it needs; its hint and the worker's traceback may follow.
            got = "".join(got.splitlines(keepends=True)[: want.count("\n")])
        return super().check_output(want, got, optionflags)


class WholeErrors:
    """`traceback` for doctest: before Python 3.11.4 it took the last line of an error alone, which may be a note."""

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)

    @staticmethod
    def format_exception_only(*error: Any) -> list[str]:
        return ["".join(traceback.format_exception_only(*error))]


doctest.traceback = WholeErrors()  # type: ignore[attr-defined]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(blocks: list[dict[str, Any]]) -> list[str]:
    """Run the blocks, one after the other; return the errors."""
    names: dict[str, Any] = {"__name__": "__docs__"}
    wrong: list[str] = []
    for block in blocks:
        place = f"{block['page']}:{block['line']}"
        if ">>>" in block["source"]:
            said: list[str] = []
            test = doctest.DocTestParser().get_doctest(block["source"], names, place, place, 0)
            test.globs = names  # and not a copy: the next block goes on
            doctest.DocTestRunner(Checker(), optionflags=FLAGS).run(test, out=said.append, clear_globs=False)
            if said:
                wrong.append(f"{place}\n{''.join(said)}")
            continue
        try:
            code = compile(block["source"], place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if code.co_flags & inspect.CO_COROUTINE:
                asyncio.run(eval(code, names))
            else:
                exec(code, names)
        except BaseException:
            wrong.append(f"{place}\n{traceback.format_exc()}")
    return wrong


if __name__ == "__main__":
    sys.path.insert(0, "")
    output, sys.stdout = sys.stdout, sys.stderr
    output.write("\n".join(run(json.load(sys.stdin))))
