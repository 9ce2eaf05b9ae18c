"""What the page of answers does: filters, the list of samples, the card of one sample, keys. Plain JavaScript, text set as text only.

The same script serves the page of answers and a part of a report (`data.inside`), which holds but some samples of a line (`data.counts`).
"""

SCRIPT = r"""
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const PORTION = 60;
const OUTCOMES = [
  ["all", "All"], ["changed", "Changed"], ["got right", "Got right"], ["got wrong", "Got wrong"],
  ["stayed right", "Stayed right"], ["stayed wrong", "Stayed wrong"],
];
const state = { line: String(data.first ?? 0), task: "", pair: null, outcome: "all", search: "", place: 0, found: [], drawn: 0 };

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}
function right(reply) { return reply[1] >= data.rightFrom; }
function percent(share) { return `${Math.round(100 * share)} %`; }
function title(model) { return model.task === null ? model.model : `${model.stage} ${model.task}, ${model.model}`; }
function image(name, className) {
  const [url, width, height] = data.images[name];
  const element = make("img", width < 160 && height < 160 ? className + " small" : className);
  Object.assign(element, { loading: "lazy", decoding: "async", alt: "", width, height, src: url });
  return element;
}

// ---- which samples
function changed(question) {
  const replies = question.replies[state.line];
  const compared = state.pair ? state.pair.map((index) => replies[index]) : replies;
  return compared.some((reply) => reply[0] !== compared[0][0]);
}
function outcome(question) {
  const replies = question.replies[state.line];
  const [first, last] = (state.pair ?? [0, replies.length - 1]).map((index) => right(replies[index]));
  return first ? (last ? "stayed right" : "got wrong") : (last ? "got right" : "stayed wrong");
}
function fits(question, wanted) {
  return wanted === "all" || (wanted === "changed" ? changed(question) : outcome(question) === wanted);
}
function matches(question, words) {
  const said = question.before.map((turn) => turn[1]);
  const text = [question.key, question.question, question.answer, ...said, ...question.replies[state.line].map((reply) => reply[0])];
  const whole = text.join("\n").toLowerCase();
  return words.every((word) => whole.includes(word));
}
function select(keepKey) {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const asked = data.questions.filter((question) => question.replies[state.line]
    && (!state.task || question.task === state.task) && matches(question, words));
  state.found = asked.filter((question) => fits(question, state.outcome));
  state.place = Math.max(0, state.found.findIndex((question) => question.key === keepKey));
  drawOutcomes(asked);
  drawShares();
  at("list").replaceChildren();
  state.drawn = 0;
  drawList(state.place + PORTION);
  show(state.place, false);
}

// ---- the filters
function drawOutcomes(asked) {
  at("outcomes").replaceChildren(...OUTCOMES.map(([wanted, name]) => {
    const button = make("button", "", name);
    button.type = "button";
    button.append(make("span", "count", asked.filter((question) => fits(question, wanted)).length));
    button.setAttribute("aria-pressed", state.outcome === wanted);
    button.onclick = () => { state.outcome = wanted; select(current()?.key); };
    return button;
  }));
}
function drawTasks() {
  const line = data.lines[state.line];
  const groups = [["Learned in this order", line.stream], ["Held out, never learned", line.heldOut]].filter(([, names]) => names.length);
  at("task").replaceChildren(new Option("All tasks", ""), ...groups.map(([label, names]) => {
    const group = make("optgroup");
    group.label = label;
    group.append(...names.map((name) => new Option(name, name)));
    return group;
  }));
  if (![...line.stream, ...line.heldOut].includes(state.task)) state.task = "";
  at("task").value = state.task;
}

function drawPairs() {  // which two models are compared
  const models = data.lines[state.line].models;
  const last = (stage) => models.findLastIndex((model) => model.stage === stage);
  const pairs = [];
  for (const stage of new Set(models.map((model) => model.stage).filter((stage) => stage > 0))) {
    const first = models.findIndex((model) => model.stage === stage), words = `${stage} ${models[first].task}`;
    if (models.length > 2) pairs.push([`${words}: whole stage`, last(stage - 1), last(stage)]);
    if (first < last(stage)) pairs.push([`${words}: its merge`, first, last(stage)]);
  }
  const kept = pairs.some(([, one, other]) => state.pair && state.pair[0] === one && state.pair[1] === other);
  if (!kept) state.pair = null;
  const options = pairs.map(([words, ...pair]) => new Option(words, pair.join()));
  at("pair").replaceChildren(new Option("all, first to last model", ""), ...options);
  at("pair").value = state.pair ? state.pair.join() : "";
}

// ---- the overview: share of right replies per model, and a row per sample
function drawShares() {
  const models = data.lines[state.line].models;
  if (data.counts) return drawCounts();
  const bars = state.found.length ? models.map((model, index) => {
    const share = state.found.filter((question) => right(question.replies[state.line][index])).length / state.found.length;
    const bar = make("span", "bar");
    bar.style.setProperty("--share", share);
    bar.title = `${title(model)}: ${percent(share)} right`;
    if (index && model.stage !== models[index - 1].stage) bar.classList.add("next");
    return [bar, share];
  }) : [];
  const words = make("p");
  if (bars.length) {
    words.append(make("b", "", `${state.found.length} sample${state.found.length === 1 ? "" : "s"}`),
      ` · right ${percent(bars[0][1])} → ${percent(bars.at(-1)[1])}`);
  } else {
    words.textContent = "no sample";
  }
  const chart = make("div", "bars");
  chart.append(...bars.map(([bar]) => bar));
  at("shares").replaceChildren(words, chart);
}
function drawCounts() {  // only changed samples are here: a share of them would say nothing about the model
  const [kept, changing, asked] = Object.entries(data.counts[state.line])
    .filter(([task]) => !state.task || task === state.task)
    .reduce((sum, [, counts]) => sum.map((count, index) => count + counts[index]), [0, 0, 0]);
  const words = make("p");
  words.append(make("b", "", `${state.found.length} sample${state.found.length === 1 ? "" : "s"}`),
    ` of ${kept} on this page; of ${asked} asked, the answer to ${changing} changed`);
  at("shares").replaceChildren(words);
}
function drawList(upTo) {
  const models = data.lines[state.line].models;
  for (; state.drawn < Math.min(upTo, state.found.length); state.drawn += 1) {
    const place = state.drawn, question = state.found[place];
    const row = make("button", "row");
    row.type = "button";
    row.append(question.images.length ? image(question.images[0], "thumb") : make("span", "thumb none"));
    const words = make("span", "words");
    words.append(make("span", "asked", question.question), make("span", "told", `${question.task} · ${question.answer}`));
    const strip = make("span", "strip");
    question.replies[state.line].forEach((reply, index) => {
      const dot = make("i", right(reply) ? "right" : "wrong");
      if (index && models[index].stage !== models[index - 1].stage) dot.classList.add("next");
      strip.append(dot);
    });
    words.append(strip);
    row.append(words);
    row.onclick = () => show(place, true);
    const item = make("li");
    item.append(row);
    at("list").append(item);
  }
  at("more").hidden = state.drawn >= state.found.length;
}
new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) drawList(state.drawn + PORTION);
}, { rootMargin: "400px" }).observe(at("more"));

// ---- the card of one sample
function current() { return state.found[state.place]; }
function show(place, moved) {
  state.place = place;
  const question = current();
  at("sample").replaceChildren(...(question ? card(question) : [make("p", "empty", "No sample fits these filters.")]));
  for (const row of at("list").querySelectorAll("[aria-current]")) row.removeAttribute("aria-current");
  if (!question) return;
  if (place >= state.drawn) drawList(place + PORTION);
  const row = at("list").children[place].firstChild;
  row.setAttribute("aria-current", "true");
  if (!data.inside) history.replaceState(null, "", `#${encodeURIComponent(question.key)}`);
  const pane = at("list").closest(".overview");
  if (getComputedStyle(pane).overflowY === "auto") {  // beside the card; on a narrow screen it stands below it
    const top = row.offsetTop - pane.offsetTop;
    const seen = top >= pane.scrollTop + 90 && top + row.offsetHeight <= pane.scrollTop + pane.clientHeight;
    if (!seen) pane.scrollTop = top - pane.clientHeight / 3;
  }
  if (moved) at("sample").scrollIntoView({ block: data.inside ? "nearest" : "start" });
}
function card(question) {
  const bar = make("nav", "steps");
  const back = make("button", "", "←"), next = make("button", "", "→");
  back.disabled = state.place === 0;
  next.disabled = state.place === state.found.length - 1;
  back.onclick = () => show(state.place - 1, true);
  next.onclick = () => show(state.place + 1, true);
  for (const [button, words] of [[back, "Previous sample"], [next, "Next sample"]]) {
    button.type = "button"; button.title = words; button.setAttribute("aria-label", words);
  }
  bar.append(back, make("span", "", `${state.place + 1} of ${state.found.length}`), next,
    make("span", `badge ${outcome(question).replace(" ", "-")}`, outcome(question)));
  const head = make("div", "head");
  const figures = make("div", "figures");
  figures.append(...question.images.map((name) => image(name, "picture")));
  const words = make("div", "question");
  for (const [who, text] of question.before) {
    const turn = make("p", "turn");
    turn.append(make("b", "", `${who} `), text);
    words.append(turn);
  }
  words.append(make("h2", "", question.question));
  const answer = make("p", "answer");
  answer.append(make("span", "label", "Right answer"), make("strong", "", question.answer));
  words.append(answer, make("p", "key", question.key));
  if (question.prompt) {
    const whole = make("details", "prompt");
    whole.append(make("summary", "", "The whole prompt"), make("pre", "", question.prompt));
    words.append(whole);
  }
  if (question.images.length) head.append(figures);
  head.append(words);
  return [bar, head, replies(question)];
}
function replies(question) {
  const models = data.lines[state.line].models;
  const columns = [...new Set(models.filter((model) => model.stage > 0).map((model) => model.model))];
  const table = make("table");
  const head = make("tr");
  head.append(make("th", "", "Stage"), ...(columns.length ? columns : [""]).map((name) => make("th", "", name)));
  table.append(head);
  for (const stage of [...new Set(models.map((model) => model.stage))]) {
    const told = models.map((model, index) => [model, question.replies[state.line][index], index]);
    const own = told.filter(([model]) => model.stage === stage);
    const row = make("tr", own[0][0].task === question.task ? "own" : "");
    const name = make("th", "", own[0][0].task === null ? "base" : `${stage} ${own[0][0].task}`);
    name.scope = "row";
    if (row.className) name.append(make("small", "", "learns this"));
    row.append(name);
    if (stage === 0) {
      const cell = replyCell(own[0], "");
      cell.colSpan = Math.max(columns.length, 1);
      row.append(cell);
    } else {
      for (const column of columns) {
        const found = own.find(([model]) => model.model === column);
        row.append(found ? replyCell(found, column) : make("td", "none"));
      }
    }
    table.append(row);
  }
  const frame = make("div", "frame");
  frame.append(table);
  return frame;
}
function replyCell([, reply, index], label) {
  const cell = make("td"), box = make("div", `reply ${right(reply) ? "right" : "wrong"}`);
  if (state.pair?.includes(index)) box.classList.add("compared");
  if (label) box.append(make("span", "label", label));
  const text = make("span", "text", reply[0] || "(nothing)");
  box.append(make("span", "mark", right(reply) ? "✓" : "✗"), text);
  if (reply[1] > 0 && reply[1] < 1) text.append(make("small", "", ` ${percent(reply[1])}`));
  cell.append(box);
  return cell;
}

// ---- what a person does
at("line").append(...data.lines.map((line, index) => new Option(line.name, index)));
at("line").value = state.line;
at("line").onchange = (event) => { state.line = event.target.value; drawTasks(); drawPairs(); select(current()?.key); };
at("task").onchange = (event) => { state.task = event.target.value; select(current()?.key); };
at("pair").onchange = (event) => {
  state.pair = event.target.value ? event.target.value.split(",").map(Number) : null;
  select(current()?.key);
};
at("search").oninput = (event) => { state.search = event.target.value; select(current()?.key); };
at("theme").onclick = () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (data.inside && !at("line").closest(".browser").matches(":hover, :focus-within")) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && state.found[state.place + step]) { event.preventDefault(); show(state.place + step, true); }
  if (event.key === "/") { event.preventDefault(); at("search").focus(); }
});
drawTasks();
drawPairs();
select(data.inside ? "" : decodeURIComponent(location.hash.slice(1)));
"""
