"""How the report looks: one column of sections, quiet tables, charts that follow light and dark; on a phone, and printed."""

from pipeline.report.answers_style import BROWSER, THEME
from pipeline.report.page.colors import arms_css, ramp_css

REPORT = """
html { scroll-padding-top: 56px; }
.report > main { max-width: 1280px; margin: 0 auto; padding: 0 24px 64px; }
.report h1, .report h2, .report h3, .report p, .report dl, .report dd, .report ul, .report figure { margin: 0; padding: 0; }
.bar-top { position: sticky; top: 0; z-index: 5; background: color-mix(in srgb, var(--page) 92%, transparent); backdrop-filter: blur(6px);
  border-bottom: 1px solid var(--rule); }
.bar-top > div { display: flex; align-items: center; gap: 4px 18px; max-width: 1280px; margin: 0 auto; padding: 8px 24px; }
.bar-top nav { display: flex; flex: 1; gap: 4px 18px; overflow-x: auto; scrollbar-width: none; white-space: nowrap; }
.bar-top a { color: var(--soft); text-decoration: none; font-size: 14px; padding: 4px 0; }
.bar-top a:hover { color: var(--blue); }
.report .intro { padding: 36px 0 8px; }
.report .intro h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere; }
.report .result { margin: 14px 0 24px; padding: 14px 18px; background: var(--card); border: 1px solid var(--rule);
  border-left: 4px solid var(--blue); border-radius: 4px 10px 10px 4px; font-size: 17px; text-wrap: pretty; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 10px 32px; }
.facts dt { font-size: 12.5px; color: var(--soft); }
.facts dd { overflow-wrap: anywhere; }
.report section { margin-top: 52px; }
.report .browser section { margin-top: 0; }
.report main > section > h2 { font-size: 21px; letter-spacing: -0.005em; }
.report h3 { margin: 22px 0 10px; font-size: 15.5px; }
.report .lead { max-width: 78ch; margin: 6px 0 16px; color: var(--soft); text-wrap: pretty; }
.report .note { max-width: 90ch; margin-top: 10px; font-size: 13.5px; color: var(--soft); }
.soft { color: var(--soft); font-weight: 400; }
.wide { overflow-x: auto; scrollbar-width: thin; }

.report details { margin-top: 12px; }
.report details > summary { padding: 7px 0; cursor: pointer; font-weight: 600; }
.report pre { margin: 0; padding: 12px 16px; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-x: auto; }

.plain { border-collapse: collapse; min-width: 60%; font-size: 13.5px; background: var(--card); }
.plain caption { padding: 6px 0; text-align: left; color: var(--soft); }
.plain th, .plain td { padding: 7px 11px; text-align: left; border-bottom: 1px solid var(--rule); white-space: nowrap; }
.plain thead th { color: var(--soft); font-weight: 500; font-size: 13px; line-height: 1.3; vertical-align: bottom; white-space: normal;
  min-width: 60px; }
.plain .groups th { padding: 8px 11px 0; border-bottom: 0; border-left: 1px solid var(--rule);
  color: var(--ink); font-weight: 600; white-space: nowrap; }
.plain .groups td { border-bottom: 0; }
.plain .start { border-left: 1px solid var(--rule); }
.plain tbody th { font-weight: 600; }
.plain .number { text-align: right; font-variant-numeric: tabular-nums; }
.plain .best { font-weight: 700; }
.plain .better { color: var(--better); font-weight: 600; }
.plain .worse { color: var(--worse); font-weight: 600; }
.plain tbody tr:hover { background: color-mix(in srgb, var(--chosen) 45%, transparent); }
:root { --better: light-dark(#1d4ed8, #8db4ff); --worse: light-dark(#a04007, #f2a65a); }

.choices { display: flex; flex-wrap: wrap; gap: 10px 20px; color: var(--soft); }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 384px), 1fr)); gap: 20px 26px; }
.heat { width: 100%; border-collapse: separate; border-spacing: 1.5px; font-size: 12.5px; font-variant-numeric: tabular-nums; }
.heat caption { padding-bottom: 6px; text-align: left; font-weight: 600; font-size: 13.5px; }
.heat th { font-weight: 400; }
.heat .groups th { color: var(--soft); text-align: left; font-size: 12px; font-style: italic; }
.heat .tasks th { height: 66px; padding: 0 0 4px; vertical-align: bottom; }
.heat .tasks span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 100px; }
.heat tbody th { padding-right: 8px; text-align: left; white-space: nowrap; max-width: 110px; overflow: hidden; text-overflow: ellipsis; }
.heat tbody td { min-width: 27px; height: 27px; padding: 0 2px; text-align: center; border-radius: 3px; }
.heat tbody .gap { min-width: 5px; width: 5px; padding: 0; }
.heat .own, .scale .own { outline: 2px solid light-dark(#111827, #f3f4f6); outline-offset: -2px; font-weight: 700; }
.scales { display: flex; flex-wrap: wrap; gap: 6px 32px; font-size: 13px; }
.report .scales { margin-top: 14px; }
.scale { display: inline-flex; align-items: center; gap: 6px; }
.ramp { display: inline-flex; border: 1px solid var(--rule); border-radius: 3px; overflow: hidden; }
.ramp i { width: 13px; height: 13px; }
.swatch { width: 18px; height: 18px; border-radius: 3px; }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 24px 32px; }
.charts.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.single figure { max-width: 700px; }
.report figcaption { margin-bottom: 6px; font-weight: 600; font-size: 14px; }
.chart { display: block; width: 100%; height: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.chart text { font-size: 12.5px; fill: var(--ink); }
.chart .title { fill: var(--soft); }
.chart .grid { stroke: var(--rule); stroke-width: 1; }
.chart .faint { stroke-opacity: 0.45; }
.chart .axis { stroke: var(--soft); stroke-width: 1; }
.chart .zero { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; }
.arm, .plain { --arm: var(--soft); }
.alone .arm0 { --arm: var(--blue); }
.line { fill: none; stroke: var(--arm); stroke-width: 1.8; stroke-linejoin: round; }
.line.dashed { stroke-dasharray: 5 4; }
.line.thin { stroke-width: 1.2; }
.mark { fill: var(--arm); stroke: var(--card); stroke-width: 1; }
.mark.hollow { fill: var(--card); stroke: var(--arm); stroke-width: 1.6; }
path.mark.plain { fill: none; stroke: var(--ink); stroke-width: 2; }
.chart .bar { stroke: var(--arm); stroke-width: 1.3; stroke-opacity: 0.5; }
.seed { fill: var(--arm); fill-opacity: 0.38; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; font-size: 14px; }
.report .legend { margin-bottom: 12px; }
.legend li { display: inline-flex; align-items: center; gap: 5px; cursor: default; }
.legend svg { width: 18px; height: 18px; }
.group.pointed .arm:not(.on) { opacity: 0.15; }
.single .legend { max-width: 860px; }

.terms { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 14px 36px; }
.terms dt { font-weight: 600; }
.terms dd { color: var(--soft); font-size: 14.5px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr)); gap: 20px; }
.pictures img { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--rule); border-radius: 10px; }

.report .browser { display: grid; grid-template-rows: auto minmax(0, 1fr); height: 800px; overflow: hidden;
  border: 1px solid var(--rule); border-radius: 12px; }
.report .browser .overview { position: relative; }
.print-only { display: none; }

@media (max-width: 760px) {
  .report > main { padding: 0 14px 48px; }
  .bar-top > div { padding: 6px 14px; }
  .report .intro { padding-top: 22px; }
  .report .intro h1 { font-size: 23px; }
  .report .result { font-size: 16px; }
  .report section { margin-top: 40px; }
  .plain th, .plain td { padding: 6px 9px; }
  .plain thead .number { min-width: 96px; }
  .plain tbody th:first-child { position: sticky; left: 0; z-index: 1; background: var(--card); white-space: normal; min-width: 124px; }
  .heat { font-size: 12px; }
  .chart text { font-size: 15px; }
  .report .browser { display: block; height: auto; }
  .report .browser .overview { max-height: 420px; overflow-y: auto; }
}
@media print {
  :root { color-scheme: light; --page: #ffffff; font-size: 12px; }
  .bar-top, .choices, .report .browser { display: none; }
  .print-only { display: block; }
  .report > main { max-width: none; padding: 0; }
  .report section { margin-top: 28px; }
  .report figure, .view, .plain tr { break-inside: avoid; }
  .report h2, .report h3, .legend { break-after: avoid; }
  .wide { overflow: visible; }
  .charts { grid-template-columns: 1fr 1fr; }
  .charts.small { grid-template-columns: 1fr 1fr 1fr; gap: 12px; }
  .panels { grid-template-columns: 1fr 1fr; }
  .heat { font-size: 9px; }
  .heat tbody td { min-width: 20px; height: 20px; padding: 0; }
  .plain, .plain thead th { font-size: 8.5px; min-width: 0; }
  .plain th, .plain td, .plain .groups th { padding: 2px 4px; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def style() -> str:
    """The whole style sheet."""
    return "\n".join((THEME, REPORT, ramp_css(), arms_css(), BROWSER))
