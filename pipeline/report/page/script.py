"""What the report does beside showing: which heat maps are seen, which arm is brought forward, light and dark. All is there without it."""

SCRIPT = r"""
"use strict";
(() => {
  const arm = document.getElementById("map-arm"), seed = document.getElementById("map-seed");
  const views = [...document.querySelectorAll(".view")];
  function choose() {
    const wanted = views.filter((view) => !arm || view.dataset.arm === arm.value);
    const found = wanted.find((view) => !seed || view.dataset.seed === seed.value) ?? wanted[0];
    for (const view of views) view.hidden = view !== found;
  }
  for (const select of [arm, seed]) if (select) select.onchange = choose;
  for (const item of document.querySelectorAll(".legend [data-arm]")) {
    const group = item.closest(".group");
    const mark = (on) => {
      group.classList.toggle("pointed", on);
      for (const each of group.querySelectorAll(`[data-arm="${item.dataset.arm}"]`)) each.classList.toggle("on", on);
    };
    item.onpointerenter = () => mark(true);
    item.onpointerleave = () => mark(false);
  }
})();
"""

THEME_SCRIPT = r"""
document.getElementById("theme").onclick = () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
};
"""
"""For a page without answers: their own script holds the same."""
