"""Every code block of the documentation is run, or compared, or says why not (see `docs_blocks`)."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from conftest_names import entrance
from docs_blocks import PAGES, ROOT, Block, blocks
from docs_project import Project

from pq.cli import VERBS, main

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCKS = [block for page in PAGES for block in blocks(page)]


def of_kind(kind: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind == kind]
