"""How the page of answers looks: light and dark, from a phone's width up. Right and wrong differ in mark and fill, not in colour alone.

`THEME` is the ground of every page of ours, `BROWSER` the part in which answers are browsed (nested, so it changes nothing around it),
`STYLE` both and the page of answers itself.
"""

THEME = """
:root {
  color-scheme: light dark;
  --page: light-dark(#f6f7f9, #0f1216);
  --card: light-dark(#ffffff, #181c22);
  --ink: light-dark(#1f2937, #e6e9ee);
  --soft: light-dark(#5b6472, #9aa4b2);
  --rule: light-dark(#e2e5ea, #2b313a);
  --blue: light-dark(#2563eb, #7aa7ff);
  --chosen: light-dark(#e8effd, #1d2b47);
  --right: light-dark(#15803d, #4ade80);
  --right-fill: light-dark(#e9f7ee, #12291b);
  --wrong: light-dark(#b42318, #ff8a7a);
  --wrong-fill: light-dark(#fdeeec, #331814);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
:root[data-theme=light] { color-scheme: light; }
:root[data-theme=dark] { color-scheme: dark; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); }
button, select, input { font: inherit; color: inherit; }
button { cursor: pointer; }
select, input { min-height: 34px; padding: 4px 8px; border: 1px solid var(--rule); border-radius: 8px; background: var(--page); }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 1px; }
[hidden] { display: none !important; }
#theme { width: 32px; height: 32px; border: 1px solid var(--rule); border-radius: 8px; background: none; }
#theme::before { content: ""; display: block; width: 14px; height: 14px; margin: auto; border: 2px solid var(--soft);
  border-radius: 50%; background: linear-gradient(90deg, var(--soft) 50%, transparent 50%); }
"""

BROWSER = """
.browser {
h1, h2, p, ol, table { margin: 0; padding: 0; }

header { padding: 14px 20px 10px; background: var(--card); border-bottom: 1px solid var(--rule); }
.top { display: flex; align-items: center; gap: 12px; }
h1 { flex: 1; font-size: 17px; overflow-wrap: anywhere; }
.filters { display: flex; flex-wrap: wrap; gap: 8px 14px; margin: 10px 0; align-items: center; }
.filters label { color: var(--soft); }
input { flex: 1; min-width: 180px; max-width: 420px; }
.outcomes { display: flex; flex-wrap: wrap; gap: 6px; }
.outcomes button { padding: 3px 12px; border: 1px solid var(--rule); border-radius: 99px; background: none; white-space: nowrap; }
.outcomes button:hover { border-color: var(--blue); }
.outcomes [aria-pressed=true] { background: var(--chosen); border-color: var(--blue); }
.count { margin-left: 6px; color: var(--soft); font-variant-numeric: tabular-nums; }

.panes { display: grid; grid-template: minmax(0, 1fr) / 340px minmax(0, 1fr); width: 100%; max-width: 1400px; margin: 0 auto; }
.overview { grid-area: 1 / 1; overflow-y: auto; border-right: 1px solid var(--rule); scrollbar-width: thin; }
.detail { grid-area: 1 / 2; display: flex; flex-direction: column; overflow-y: auto; padding: 16px 24px; scrollbar-width: thin; }
.shares { position: sticky; top: 0; z-index: 1; padding: 12px 16px 8px; background: var(--page); border-bottom: 1px solid var(--rule); }
.shares p { font-size: 13px; color: var(--soft); }
.shares b { color: var(--ink); }
.bars { display: flex; gap: 2px; height: 34px; margin-top: 6px; align-items: end; }
.bar { flex: 1; max-width: 26px; height: 100%; border-radius: 2px;
  background: linear-gradient(var(--right), var(--right)) bottom / 100% calc(100% * var(--share)) no-repeat, var(--rule); }
.bar.next { margin-left: 5px; }
ol { list-style: none; }
.row { display: flex; gap: 12px; align-items: center; width: 100%; padding: 8px 16px; border: 0; border-left: 3px solid transparent;
  border-bottom: 1px solid var(--rule); background: none; text-align: left; }
.row:hover { background: var(--card); }
.row[aria-current] { background: var(--chosen); border-left-color: var(--blue); }
.row:focus-visible { outline-offset: -2px; }
.thumb { width: 48px; height: 48px; flex: none; border-radius: 6px; object-fit: cover; background: var(--rule); }
.small { image-rendering: pixelated; }
.words { flex: 1; min-width: 0; display: grid; }
.asked, .told { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.told { font-size: 13px; color: var(--soft); }
.strip { display: flex; flex-wrap: wrap; gap: 2px; margin-top: 3px; }
.strip i { width: 9px; height: 9px; border-radius: 2px; border: 1.5px solid var(--wrong); }
.strip i.right { background: var(--right); border-color: var(--right); }
.strip i.next { margin-left: 5px; }

.steps { display: flex; align-items: center; gap: 8px; margin-bottom: 14px; color: var(--soft); font-variant-numeric: tabular-nums; }
.steps button { width: 38px; height: 34px; border: 1px solid var(--rule); border-radius: 8px; background: var(--card); }
.steps button:disabled { opacity: 0.35; cursor: default; }
.badge { margin-left: auto; padding: 2px 12px; border-radius: 99px; border: 1px solid; }
.badge.got-right, .badge.stayed-right { color: var(--right); background: var(--right-fill); }
.badge.got-wrong, .badge.stayed-wrong { color: var(--wrong); background: var(--wrong-fill); }
.head { display: flex; gap: 24px; align-items: flex-start; margin-bottom: 20px; }
.figures { display: flex; flex-wrap: wrap; gap: 8px; max-width: 45%; flex: none; }
.picture { display: block; width: auto; height: auto; max-width: 100%; max-height: 320px;
  border-radius: 10px; border: 1px solid var(--rule); }
.picture.small { width: 224px; }
.question { min-width: 0; }
.question h2 { font-size: 22px; line-height: 1.3; overflow-wrap: anywhere; white-space: pre-line; }
.sample { scroll-margin-top: 16px; }
.turn { margin-bottom: 8px; color: var(--soft); overflow-wrap: anywhere; }
.answer { margin-top: 14px; }
.answer strong { font-size: 18px; overflow-wrap: anywhere; white-space: pre-line; }
.label { display: block; font-size: 12.5px; color: var(--soft); }
.key { margin-top: 14px; font: 12px ui-monospace, "DejaVu Sans Mono", monospace; color: var(--soft); overflow-wrap: anywhere; }
.frame { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
tr + tr { border-top: 1px solid var(--rule); }
th { padding: 8px 14px; text-align: left; font-weight: 600; white-space: nowrap; vertical-align: top; }
tr:first-child th { color: var(--soft); font-weight: 400; font-size: 13px; }
th small { display: block; color: var(--blue); font-weight: 400; }
td { padding: 6px; min-width: 150px; vertical-align: top; }
.own { background: color-mix(in srgb, var(--chosen) 55%, transparent); }
.reply { display: flex; flex-wrap: wrap; gap: 0 8px; padding: 5px 10px; border-radius: 7px; border-left: 3px solid;
  overflow-wrap: anywhere; }
.reply.right { border-color: var(--right); background: var(--right-fill); }
.reply.wrong { border-color: var(--wrong); background: var(--wrong-fill); }
.reply .label { display: none; width: 100%; }
.reply .text { flex: 1; min-width: 0; color: var(--ink); white-space: pre-line; }
.reply.compared { outline: 2px solid var(--blue); outline-offset: -1px; }
.mark { font-weight: 700; }
.prompt { margin-top: 12px; font-size: 13px; color: var(--soft); }
.prompt pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.right .mark { color: var(--right); }
.wrong .mark { color: var(--wrong); }
.empty { padding: 48px 0; text-align: center; color: var(--soft); }
footer { margin-top: auto; padding-top: 24px; font-size: 13px; color: var(--soft); }

@media (max-width: 760px) {
  header { padding: 12px 14px 10px; }
  .outcomes { flex-wrap: nowrap; overflow-x: auto; margin: 0 -14px; padding: 2px 14px; scrollbar-width: none; }
  .filters label, .filters select { flex: 1; }
  .filters label { display: flex; gap: 8px; align-items: center; min-width: 100%; }
  input { min-width: 100%; }
  .panes { display: flex; flex-direction: column; }
  .detail { display: contents; }
  footer { order: 1; padding: 16px 14px 20px; }
  .overview { overflow: visible; border-right: 0; border-top: 1px solid var(--rule); }
  .sample { padding: 0 14px 22px; scroll-margin-top: 0; }
  .steps { position: sticky; top: 0; z-index: 2; margin: 0 -14px 14px; padding: 8px 14px; background: var(--page);
    border-bottom: 1px solid var(--rule); }
  .steps button { width: 46px; height: 40px; }
  .head { gap: 16px; }
  .picture.small { width: 128px; }
  .question h2 { font-size: 18px; }
  .head:has(.picture:not(.small)) { flex-direction: column; }
  .head:has(.picture:not(.small)) .figures { max-width: 100%; }
  tr { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 6px; padding: 8px 10px 10px; }
  tr:first-child { display: none; }
  tr:nth-child(2) { border-top: 0; }
  th { grid-column: 1 / -1; padding: 0; }
  th small { display: inline; margin-left: 8px; }
  td { padding: 0; min-width: 0; }
  td.none { display: none; }
  td[colspan] { grid-column: 1 / -1; }
  .reply .label { display: block; }
}
}
"""

WHOLE = """
.whole { display: grid; grid-template-rows: auto minmax(0, 1fr); height: 100vh; }
@media (max-width: 760px) {
  .whole { display: block; height: auto; }
}
"""

STYLE = THEME + BROWSER + WHOLE
