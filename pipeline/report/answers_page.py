"""The page on which a run's answers are browsed: one HTML file that needs nothing else, neither network nor the files beside it.

The data stand in the page as JSON, images as `data:` addresses that are decoded when they come into view. What a model answered is only
ever set as text. `answers_style.py` is its look, `answers_script.py` what it does.
"""

import html
import json
from collections.abc import Mapping
from typing import Any

from pipeline.report.answers import RIGHT_FROM, Answers, Line, Question
from pipeline.report.answers_script import SCRIPT
from pipeline.report.answers_style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: questions and answers</title>
<style>{style}</style>
</head>
<body class="browser whole">
{browser}
<script>{script}</script>
</body>
</html>
"""

BROWSER = """\
<header>
  {head}
  <div class="filters">
    <label{one_line}>Arm <select id="line"></select></label>
    <label>Task <select id="task"></select></label>
    <label>Stage <select id="pair"></select></label>
    <input id="search" type="search" placeholder="Search questions and answers" aria-label="Search questions and answers">
  </div>
  <div class="outcomes" id="outcomes" role="group" aria-label="What became of the question"></div>
</header>
<div class="panes">
  <div class="detail">
    <section class="sample" id="sample" aria-live="polite"></section>
    <footer>{note}</footer>
  </div>
  <section class="overview">
    <div class="shares" id="shares"></div>
    <ol id="list"></ol>
    <div id="more"></div>
  </section>
</div>
<script id="data" type="application/json">{data}</script>"""
HEAD = """\
<div class="top">
    <h1>{title}</h1>
    {theme}
  </div>"""
THEME_BUTTON = '<button id="theme" type="button" title="Light or dark" aria-label="Light or dark"></button>'


def page(answers: Answers) -> str:
    """The whole page."""
    head = HEAD.format(title=html.escape(answers.title), theme=THEME_BUTTON)
    return PAGE.format(
        policy=POLICY,
        title=html.escape(answers.title),
        style=STYLE,
        browser=browser(answers, data(answers), note(answers), head),
        script=SCRIPT,
    )


def browser(answers: Answers, told: Mapping[str, Any], words: str, head: str = "") -> str:
    """What a person browses in, with its data: the part that `answers_script.py` fills. `words` stand below, `head` above, as markup."""
    return BROWSER.format(
        head=head,
        one_line=" hidden" if len(answers.lines) == 1 else "",
        note=html.escape(words),
        data=as_script(told),
    )


def as_script(told: Mapping[str, Any]) -> str:
    """Plain values as JSON that can stand in a script element: nothing in it can end the element."""
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def note(answers: Answers) -> str:
    """What is shown, in a few sentences."""
    part = "all" if answers.shown >= answers.asked else f"the first {answers.shown} of"
    return (
        f"Shown: {part} {answers.asked} samples of each task. A reply is right from a score of {RIGHT_FROM:g} on. "
        "Got right, got wrong: from the first model to the last. Changed: the replies are not all the same. "
        "Keys: ← → previous and next sample, / search."
    )


def data(answers: Answers) -> dict[str, Any]:
    """What the script reads."""
    return {
        "rightFrom": RIGHT_FROM,
        "lines": [line_data(line) for line in answers.lines],
        "images": {name: [picture.url, picture.width, picture.height] for name, picture in answers.pictures.items()},
        "questions": [question_data(question) for question in answers.questions],
    }


def line_data(line: Line) -> dict[str, Any]:
    """A line's name, models and tasks."""
    models = [{"stage": model.stage, "task": model.task, "model": model.model} for model in line.models]
    return {"name": f"{line.arm}, seed {line.seed}", "models": models, "heldOut": line.held_out, "stream": line.stream}


def question_data(question: Question) -> dict[str, Any]:
    """A question and its replies by line."""
    replies = {str(line): [[reply.response, round(reply.score, 4)] for reply in told] for line, told in sorted(question.replies.items())}
    images = [picture.name for picture in question.pictures]
    return {
        "task": question.task,
        "key": question.key,
        "before": question.before,
        "question": question.question,
        "answer": question.answer,
        "prompt": "" if question.prompt == question.question else question.prompt,
        "images": images,
        "replies": replies,
        "outcomes": {str(line): question.outcome(line).value for line in sorted(question.replies)},
    }
