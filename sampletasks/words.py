"""Count the words of books: a process job for one file, and a job that counts all files of a directory."""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pq import api

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")  # letters of any language, and apostrophes between them

COMMON_WORDS = frozenset(
    WORD.findall("""
    a about above after again against all am an and any are as at be because been before being below between
    both but by can cannot could did do does doing don't down during each few for from further had has have
    having he her here hers herself him himself his how i i'm if in into is isn't it it's its itself just me
    more most my myself no nor not now of off on once only or other our ours ourselves out over own same she
    should so some such than that the their theirs them themselves then there these they this those through to
    too under until up upon very was wasn't we were what when where which while who whom whose why will with
    would you your yours yourself yourselves
    """)
)


@api.job(concurrency=api.CPUBOUND, timeout=600)
def count_words(self: api.Job, path: str, output_dir: str = "output", most: int = 10) -> dict[str, Any]:
    """Count the words of a text file without the common ones, and save the counts as JSON.

    Bytes that are not UTF-8 separate words, so any file can be counted. If the file is missing, the task is a
    FAILURE with its name.
    """
    counts: Counter[str] = Counter()
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            counts.update(WORD.findall(line.lower().replace("’", "'")))
    for word in COMMON_WORDS:
        del counts[word]
    # The id separates two counts of one file; a retry overwrites the file of the attempt before.
    name = f"{Path(path).name[:50]}_{self.task.id}.json"
    output = save_file(Path(output_dir), name, json.dumps(dict(ranked(counts)), ensure_ascii=False, indent=0))
    print(f"Processed {path} with process id: {os.getpid()}")  # reaches the log of the worker
    return {"output": str(output), "pid": os.getpid(), **summary(counts, most)}


@api.job()
async def count_texts(
    self: api.Job, directory: str, output_dir: str = "output", most: int = 10
) -> dict[str, Any]:
    """Count all `*.txt` files of a directory, one task for each, and add up the saved counts."""
    paths = await self.run_in_executor(texts_in, directory)
    futures = [self.queue("count.words", path=path, output_dir=output_dir) for path in paths]
    results: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for path, future in zip(paths, futures, strict=True):
        task = await future
        if task.status == api.SUCCESS:
            results.append(task.result)
        else:  # keep the counts of the other files
            failed[path] = task.exception or task.status_string
        self.progress(len(results) + len(failed), len(paths))
    totals = await self.run_in_executor(merged, [result["output"] for result in results])
    pids = sorted({result["pid"] for result in results})
    return {"files": len(results), "failed": failed, "pids": pids, **summary(totals, most)}


def texts_in(directory: str) -> list[str]:
    """Return the text files of a directory, sorted by name."""
    return sorted(str(path) for path in Path(directory).iterdir() if path.suffix == ".txt")


def merged(outputs: list[str]) -> Counter[str]:
    """Return the sum of saved counts."""
    totals: Counter[str] = Counter()
    for output in outputs:
        totals.update(json.loads(Path(output).read_text("utf-8")))
    return totals


def ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    """Sort words by frequency, highest first, then by the alphabet."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def summary(counts: Counter[str], most: int) -> dict[str, Any]:
    """Return counts that are small enough for a result."""
    return {"words": counts.total(), "different": len(counts), "most_common": ranked(counts)[:most]}


def save_file(directory: Path, name: str, text: str) -> Path:
    """Write a file atomically: it is renamed when it is complete, so readers never see a part of it."""
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / f".{name}.{os.getpid()}"
    try:
        part.write_text(text, "utf-8")
        return part.replace(directory / name)
    finally:
        part.unlink(missing_ok=True)
