"""The report as one page: `report_page` lays its sections one below the other. It reads nothing; `write.py` gathers what it shows.

The page needs nothing beside itself: style, scripts, charts and images stand in it, and its policy forbids it to load anything.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.report.answers_page import POLICY, THEME_BUTTON, browser
from pipeline.report.answers_script import SCRIPT as ANSWERS_SCRIPT
from pipeline.report.comparison import Arm, after_stage, arms_of
from pipeline.report.orders import order_difference_grid, order_differences, orders_grid, orders_of
from pipeline.report.page.arms import shown_first
from pipeline.report.page.changed import Changed, browser_data
from pipeline.report.page.curves import curves
from pipeline.report.page.facts import Facts, facts_block
from pipeline.report.page.glossary import glossary
from pipeline.report.page.headline import headline
from pipeline.report.page.heat import heat_maps
from pipeline.report.page.markup import element, folded, grid_table, section, text
from pipeline.report.page.parts import parts_table
from pipeline.report.page.scatter import frontiers, learning_against_forgetting
from pipeline.report.page.script import SCRIPT, THEME_SCRIPT
from pipeline.report.page.stages import arms_table, figures_table, merges_tables
from pipeline.report.page.style import style
from pipeline.report.paired import PairedScores
from pipeline.report.run_scores import RunScores


@dataclass(frozen=True)
class Content:
    """All that a page shows. `changed`: the answers that changed, or in words why there are none.

    `pictures` (caption -> PNG) are those of searches, `left_out` how many more lie beside the page.
    """

    title: str
    runs: Sequence[RunScores]
    facts: Sequence[Facts]
    paired: PairedScores
    changed: Changed | str = ""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    left_out: int = 0


def report_page(content: Content) -> str:
    """The whole page. The same content gives the same text. Raises InputError as `arms_of` does, for runs with gaps."""
    arms = arms_of(content.runs)
    first = shown_first(arms)
    sections = [
        section("figures", "Figures", figures_table(arms), orders_part(arms), parts_table(arms), lead=figures_lead(arms)),
        merged(content, arms, first),
        section("maps", "Stage by task", heat_maps(arms, first), lead=MAPS),
        section("curves", "Over the stages", curves(arms), lead=curves_lead(arms)),
        titled("frontier", "New task against held-out tasks", frontiers(arms), FRONTIER),
        titled("learning", "Learning against forgetting", learning_against_forgetting(arms), LEARNING),
        titled("searches", "What was searched", pictures(content.pictures, content.left_out), ""),
        section("answers", "Answers that changed", answers_part(content.changed, arms[first].name), lead=ANSWERS),
        section("glossary", "What the figures mean", glossary()),
    ]
    shown = [each for each in sections if each]
    intro = element(
        "div", element("h1", text(content.title)), element("p", text(headline(arms)), class_="result"), facts_block(content.facts),
        class_="intro",
    )  # fmt: skip
    return whole_page(content, navigation(shown), intro + "".join(shown))


MAPS = "Every model on every task, one row per stage; the number is in the cell."
CURVES = (
    "Means over seeds; bars are 95 % intervals over seeds, cut off where they leave the chart. Point at an arm's name to bring it forward."
)
FRONTIER = "What a stage gains on its new task and what the held-out tasks keep, before and after the merge; the upper right is best."
LEARNING = "Each arm after its last stage: mean over seeds with 95 % intervals, and a faint dot per seed."
ANSWERS = (
    "Samples to which the models of an arm answered differently. Choose a stage to see what its merge, or the whole stage, changed. "
    "Got right and got wrong compare the first with the last of the models compared."
)
MERGES = (
    "The stage's tuned model and the merged model on the same samples: on the stage's own task, on the mean of the held-out tasks, and on "
    "all tasks. In points, with 95 % bootstrap intervals; p is adjusted for the number of comparisons in each table."
)


def figures_lead(arms: Sequence[Arm]) -> str:
    """How the figures are to be read."""
    several = any(len(arm.runs) > 1 for arm in arms)
    over = "mean ± half of the 95 % interval over seeds" if several else "of one seed: ± of accuracies is that over the samples"
    return f"In percent and percentage points, {after_stage(arms[0].stage, arms[0].runs[0].stream)}; {over}."


def curves_lead(arms: Sequence[Arm]) -> str:
    """How the curves are to be read."""
    if any(len(arm.runs) > 1 for arm in arms):
        return CURVES
    merges = len(arms) == 1 and arms[0].runs[0].merges
    return "Of one seed; the tuned models, before their merges, are dashed." if merges else "Of one seed each."


def orders_part(arms: Sequence[Arm]) -> str:
    """What the order of the tasks does; "" where there is but one."""
    orders = orders_of(arms)
    return "".join(grid_table(grid) for grid in (orders_grid(orders), order_difference_grid(order_differences(orders))) if grid)


SHORT = {
    "figures": "Figures", "merges": "Before and after", "maps": "Stage by task", "curves": "Over the stages", "frontier": "Frontier",
    "learning": "Learning", "searches": "Searches", "answers": "Answers", "glossary": "What it means",
}  # fmt: skip
"""Section -> its name in the bar above the page."""


def titled(identifier: str, title: str, content: str, lead: str) -> str:
    """A section, or nothing where it has no content."""
    return section(identifier, title, content, lead=lead) if content else ""


def merged(content: Content, arms: Sequence[Arm], first: int) -> str:
    """Before against after, and arms against each other."""
    merges, against = merges_tables(arms, content.paired, first), arms_table(arms, content.paired)
    between = element("h3", "Arms against each other, last models") + against if merges and against else against
    notes = "".join(element("p", text(note), class_="note") for note in content.paired.notes)
    title, lead = ("Before and after the merge", MERGES) if merges else ("Arms against each other", "")
    return titled("merges", title, merges + between + notes, lead)


def pictures(found: Mapping[str, bytes], left_out: int) -> str:
    """PNG images with their captions, folded."""
    figures = [
        element(
            "figure",
            element("figcaption", text(caption)),
            element("img", alt=caption, src=f"data:image/png;base64,{base64.b64encode(png).decode()}", loading="lazy"),
        )
        for caption, png in found.items()
    ]
    block = element("div", *figures, class_="pictures")
    note = f"{len(figures)} pictures" + (f"; {left_out} more beside this page, in search/" if left_out else "")
    return folded("Every search's trials on the validation split", block, note=note) if figures else ""


def answers_part(changed: Changed | str, arm: str) -> str:
    """The browser of changed answers, those of `arm` first; or why there is none."""
    if isinstance(changed, str):
        return element("p", text(changed or "No answers are at hand."), class_="note")
    kept = sum(shown for each in changed.counts for shown, _, _ in each.values())
    every = sum(count for each in changed.counts for _, count, _ in each.values())
    if not kept:
        return element("p", f"{every} answers changed, and none of them fits this page." if every else "No answer changed.", class_="note")
    words = (
        f"Shown: {kept} of {every} changed answers (an answer counts once for each arm and seed), the first of every kind of each task. "
        "Keys: ← → previous and next sample, / search."
    )
    told = browser_data(changed, arm)
    note = element("p", "The answers can be browsed on the page itself; they are not printed.", class_="print-only")
    return element("div", browser(changed.answers, told, words), class_="browser") + note


def navigation(sections: Sequence[str]) -> str:
    """Links to the sections."""
    links = []
    for each in sections:
        identifier = each.removeprefix('<section id="').split('"', 1)[0]
        links.append(element("a", text(SHORT[identifier]), href=f"#{identifier}"))
    return element("nav", *links)


def whole_page(content: Content, links: str, body: str) -> str:
    """The document around the sections."""
    has_browser = '<div class="browser">' in body
    scripts = SCRIPT + (ANSWERS_SCRIPT.replace('"use strict";', "") if has_browser else THEME_SCRIPT)
    shown_without = element("noscript", "<style>.view[hidden] { display: block !important; }</style>")
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(content.title)}</title><style>{style()}</style>{shown_without}"
    )
    top = element("div", element("div", links, THEME_BUTTON), class_="bar-top")
    main = element("main", body)
    kind = "report alone" if len({run.arm for run in content.runs}) == 1 else "report"
    page = f"{top}{main}<script>{scripts}</script>"
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body class="{kind}">{page}</body>\n</html>\n'
