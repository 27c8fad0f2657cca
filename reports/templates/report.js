"use strict";
// Draws the figures from the JSON in the page, in the colours of the page, and shows one plan at a time.
const figures = JSON.parse(document.getElementById("figures").textContent);
const config = {
  responsive: true,
  displaylogo: false,
  modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d"],
};
const drawn = new Set();

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { ink: of("--ink"), grid: of("--grid"), line: of("--line"), card: of("--card") };
}

function themed(layout) {
  const { ink, grid, line, card } = colours();
  const result = {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: 12.5, family: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif" },
    hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: ink },
  };
  for (const key of Object.keys(layout)) {
    if (/^[xy]axis\d*$/.test(key)) {
      result[key] = { gridcolor: grid, linecolor: line, zerolinecolor: line, ...layout[key] };
    }
  }
  return result;
}

function draw(element) {
  const figure = figures[element.dataset.figure];
  if (!figure) return;
  drawn.add(element);
  // Plotly writes into what it is given, so it gets a copy.
  const { data, layout } = JSON.parse(JSON.stringify(figure));
  Plotly.react(element, data, themed(layout), config);
}

function drawVisible() {
  for (const element of document.querySelectorAll(".figure")) {
    if (element.closest("[hidden]") === null && !drawn.has(element)) draw(element);
  }
}

function redraw() {
  drawn.forEach(draw);
}

function choose(plan) {
  for (const panel of document.querySelectorAll(".panel")) {
    panel.hidden = panel.dataset.plan !== plan;
  }
  drawVisible();
}

document.documentElement.classList.add("scripted");
const select = document.getElementById("plan-select");
if (select) {
  select.addEventListener("change", () => choose(select.value));
  choose(select.value);
} else {
  drawVisible();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
matchMedia("print").addEventListener("change", redraw);
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
