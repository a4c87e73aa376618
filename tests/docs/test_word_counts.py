"""The word counts of `docs/how-to/word-counts.md`: the page from a clean directory, and two megabytes of real text."""

from __future__ import annotations

import json
import re
import runpy
import sysconfig
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from docs_blocks import ROOT, Block, blocks, parse
from docs_project import Project

PAGE = blocks(ROOT / "docs/how-to/word-counts.md")
SAMPLE = ROOT / "sampletasks/words.py"
RUNNER = Path(__file__).with_name("docs_runner.py")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The files of the page in a project."""
    project = Project(tmp_path)
    for block in PAGE:
        if block.file is not None:
            project.write(block.file, block.source)
    return project


def type_in(project: Project, session: list[Block]) -> None:
    """Type the lines of the blocks, and compare the output."""
    done = project.python(str(RUNNER), stdin=json.dumps([asdict(block) for block in session]))
    assert (done.returncode, done.stdout) == (0, ""), f"{done.stderr}\nthe server said:\n{project.said()}"


def session(text: str) -> list[Block]:
    return list(parse(f"```pycon\n>>> from manage import app\n>>> api = app().api()\n{text}```\n", "session"))


def test_the_page_has_the_sample_to_the_letter() -> None:
    """The files on the page are those of the repository."""
    (shown,) = [block for block in PAGE if block.file == "sampletasks/words.py"]
    assert shown.source == SAMPLE.read_text("utf-8")


def test_the_page_from_a_clean_directory(project: Project) -> None:
    """Its files, its server, its lines; at least two processes count, and each has a log file of its own."""
    (command,) = [command for block in PAGE if block.kind == "shell" for _, command in block.commands()]
    assert command == "python manage.py -w 2 --log-dir logs"
    with project.server(*command.split()[2:]):
        project.wait_for("ready ·", times=2)
        type_in(project, [block for block in PAGE if block.kind == "python"])
    logs = project.directory / "logs"
    names = sorted(re.sub(r"\d+\.log$", "", path.name) for path in logs.iterdir())
    # Two processes, or more where there are more cores.
    assert len(names) >= 5
    assert {
        "pq-supervisor-",
        "pq-worker-1-",
        "pq-worker-2-",
        "pq-worker-1-child-",
        "pq-worker-2-child-",
    } == set(names)
    told = Counter()
    for path in logs.glob("*-child-*.log"):
        (pid,) = re.findall(r"-child-(\d+)\.log$", path.name)
        told.update(set(re.findall(r"Processed (\S+) with process id: " + pid, path.read_text("utf-8"))))
    assert set(told) == {f"texts/book-{number}.txt" for number in range(1, 7)}
    assert any("FileNotFoundError" in path.read_text("utf-8") for path in logs.glob("*-child-*.log"))


def plainly_counted(texts: list[Path], common: frozenset[str]) -> Counter[str]:
    """The same by other means: no regular expression, no stream of lines, no other process."""
    counts: Counter[str] = Counter()
    for path in texts:
        text = path.read_bytes().decode("utf-8", "replace").lower().replace("’", "'")
        others = {sign for sign in set(text) if not (sign.isalnum() and not sign.isdecimal()) and sign != "'"}
        for run in text.translate({ord(sign): " " for sign in others}).split():
            counts.update(word for part in run.split("''") if (word := part.strip("'")))
    return Counter({word: number for word, number in counts.items() if word not in common})


def test_two_megabytes_of_real_text(project: Project) -> None:
    """Several processes count the words of Python's own library; plain Python gets the same numbers."""
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts: list[Path] = []
    size = 0
    for number in range(8):
        text = b"".join(path.read_bytes() for path in sources[number::8])
        size += len(text)
        project.write("texts/.keep", "")
        texts.append(project.directory / f"texts/part-{number}.txt")
        texts[-1].write_bytes(text)
    assert size > 2_000_000
    with project.server("-w", "2"):
        project.wait_for("ready ·", times=2)
        type_in(
            project,
            session(
                """\
>>> import json
>>> result = api.tasks.queue("count.texts", directory="texts", most=1_000).wait(25).get()
>>> result["files"], result["failed"], len(result["pids"]) > 1
(8, {}, True)
>>> size = open("result.json", "w").write(json.dumps(result))
"""
            ),
        )
    result = json.loads((project.directory / "result.json").read_text())
    names = runpy.run_path(str(SAMPLE))
    expected = plainly_counted(texts, names["COMMON_WORDS"])
    found = names["merged"]([str(path) for path in (project.directory / "output").iterdir()])
    assert found == expected
    assert (result["words"], result["different"]) == (expected.total(), len(expected))
    assert result["words"] > 100_000
    assert [word for word, _ in result["most_common"]] == [
        word for word, _ in sorted(expected.items(), key=lambda pair: (-pair[1], pair[0]))[:1_000]
    ]


def test_awkward_files(project: Project) -> None:
    """No text, no words, no file, no directory: a result or an error that names it, and no litter."""
    project.write("texts/empty.txt", "")
    project.write("texts/common.txt", "The and OF\n")
    project.write("texts/" + "long" * 60 + ".txt", "whale\n")
    project.write("texts/words.txt", "Don’t — can't it be L'été, l'été? x2y_z ''a''b'' straße\n")
    (project.directory / "texts/binary.txt").write_bytes(bytes(range(256)) * 100 + b"\xffwhale\xfe\x00whale")
    project.write("occupied", "a file")
    with project.server("-w", "1"):
        project.wait_for("ready ·")
        type_in(
            project,
            session(
                """\
>>> def count(path, output_dir="new/output"):
...     return api.tasks.queue("count.words", path=path, output_dir=output_dir).wait(25)
>>> [count(f"texts/{name}.txt").get()["words"] for name in ("empty", "common", "long" * 60)]
[0, 0, 1]
>>> count("texts/words.txt").get()["most_common"]
[("l'été", 2), ('b', 1), ("can't", 1), ('straße', 1), ('x', 1), ('y', 1), ('z', 1)]
>>> dict(count("texts/binary.txt").get()["most_common"])["whale"]
2
>>> count("nowhere.txt", "never").exception
"FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.txt'"
>>> count("texts/words.txt", "occupied").exception
"FileExistsError: [Errno 17] File exists: 'occupied'"
>>> api.tasks.queue("count.texts", directory="nowhere").wait(25).exception
"FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'"
>>> import os
>>> os.mkdir("texts/odd.txt")
>>> result = api.tasks.queue("count.texts", directory="texts").wait(25).get()
>>> result["files"], result["failed"]
(5, {'texts/odd.txt': "IsADirectoryError: [Errno 21] Is a directory: 'texts/odd.txt'"})
"""
            ),
        )
    assert not (project.directory / "never").exists()
    for output in ("output", "new/output"):
        saved = list((project.directory / output).iterdir())
        assert len(saved) == 5
        assert all(path.suffix == ".json" and not path.name.startswith(".") for path in saved)
