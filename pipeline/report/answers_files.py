"""The files of a run's answers: answers.html to browse, answers.json, answers.md, and the images beside them that the last two point to."""

import html
from pathlib import Path

from foundation.files import write_atomic, write_json_atomic
from pipeline.report.answers import Answers, Line, Question, Reply, as_json
from pipeline.report.answers_page import page

MARKS = {True: "✓", False: "✗"}


def write_answers(answers: Answers, output: Path) -> list[Path]:
    """Write everything into the directory `output`, made if it is not there; the files to read. The same answers give the same bytes."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    for picture in answers.pictures.values():
        write_atomic(output / "images" / picture.name, picture.data)
    files = [output / name for name in ("answers.html", "answers.json", "answers.md")]
    write_json_atomic(files[1], as_json(answers))
    write_atomic(files[2], markdown(answers))
    write_atomic(files[0], page(answers))
    return files


def markdown(answers: Answers) -> str:
    """A table per line and task: a row per question, a column per model."""
    parts = [
        f"# {answers.title}: questions and answers\n",
        f"The first {answers.shown} of {answers.asked} samples of each task. {MARKS[True]} right, {MARKS[False]} wrong; "
        "`answers.html` shows the same to browse.\n",
    ]
    for place, line in enumerate(answers.lines):
        parts.append(f"## {line.arm}, seed {line.seed}\n")
        for task in (*line.held_out, *line.stream):
            asked = [question for question in answers.questions if question.task == task and place in question.replies]
            parts += [f"### {task}{'' if task in line.stream else ' (held out)'}\n", table(asked, place, line)]
    return "\n".join(parts)


def table(questions: list[Question], place: int, line: Line) -> str:
    """The questions of one task as a Markdown table."""
    head = ["image", "question", "right answer", *(model.title for model in line.models)]
    rows = [head, [":---"] * len(head)]
    for question in questions:
        images = " ".join(
            f'<img src="images/{picture.name}" width="{max(64, min(160, picture.width))}" alt="">' for picture in question.pictures
        )
        said = [f"{who}: {text}" for who, text in question.before]
        rows.append([images, cell("\n".join([*said, question.question])), cell(question.answer), *map(reply_cell, question.replies[place])])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def reply_cell(reply: Reply) -> str:
    """A reply with its mark."""
    share = "" if reply.score in (0, 1) else f" ({100 * reply.score:.0f} %)"
    return f"{MARKS[reply.right]} {cell(reply.response)}{share}"


def cell(text: str) -> str:
    """Text that a table's cell shows as it is."""
    escaped = html.escape(text, quote=False)
    for sign in "\\`*_[]|~":
        escaped = escaped.replace(sign, f"\\{sign}")
    return "<br>".join(escaped.splitlines()) or "–"
