// The page: header, switches and tables.

const main = document.getElementById("main");
const PAPER = 720;

function head() {
  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const parts = [data.subtitle, count(data.groups.length, "group"), count(data.runs.length, "run"), data.excluded.length ? `${data.excluded.length} left out` : ""];
  document.getElementById("about").append(parts.filter(Boolean).join(" · "));
  const verdict = document.getElementById("verdict");
  if (data.verdict) verdict.append(minus(data.verdict));
  else verdict.remove();
  const notes = document.getElementById("notes");
  if (data.notes.length) notes.append(element("details", { open: data.notes.some((note) => note.startsWith("Too short")) }, element("summary", {}, count(data.notes.length, "note")), element("ul", {}, ...data.notes.map((note) => element("li", {}, minus(note))))));
}

function chips() {
  const bar = document.getElementById("chips");
  data.groups.forEach((group, index) => {
    const chip = element("button", { type: "button", class: "chip", "aria-pressed": "true", "data-chip": index, title: "Click: show or hide. Double click: show only this one, or all" }, key(index), group.name);
    chip.addEventListener("click", () => toggle(index));
    chip.addEventListener("dblclick", () => {
      const others = data.groups.map((_, place) => place).filter((place) => place !== index);
      const isAlone = !hidden.has(index) && others.every((place) => hidden.has(place));
      hidden.clear();
      if (!isAlone) others.forEach((place) => hidden.add(place));
      update();
    });
    bar.append(chip);
  });
}

function toggle(index) {
  if (hidden.has(index)) hidden.delete(index);
  else hidden.add(index);
  update();
}

function update() {
  document.querySelectorAll("[data-chip]").forEach((chip) => chip.setAttribute("aria-pressed", String(!hidden.has(Number(chip.dataset.chip)))));
  document.querySelectorAll("tr[data-row]").forEach((row) => (row.hidden = hidden.has(Number(row.dataset.row))));
  hideTip();
  for (const one of figures) one.draw();
}

const differenceOf = new Map(data.paired.map((pair) => [pair.group, pair]));
const under = (main, sub) => [main, sub ? element("div", { class: "sub" }, sub) : null];
const bounds = (sample, show = fixed) => (sample && sample.low !== null ? range(sample.low, sample.high, 100, show) : null);
const plain = (field, factor, digits) => ({ text: (g) => spread(g[field], factor, digits), value: (g) => g[field]?.mean });
const mean = (field, shown = amount) => ({ text: (g) => (g[field] ? shown(g[field].mean) : DASH), value: (g) => g[field]?.mean });

// By the keys of --columns.
const COLUMNS = {
  n: { name: "n", text: (g) => g.final.n, value: (g) => g.final.n },
  test: { name: "test accuracy (%)", text: (g) => under(element("b", {}, spread(g.final, 100)), data.interval_below ? bounds(g.final) : null), value: (g) => g.final.mean },
  interval: { name: "95 % interval", text: (g) => bounds(g.final) ?? DASH, value: (g) => g.final.low },
  best: { name: "best by validation (%)", ...plain("best", 100) },
  difference: {
    name: `difference to ${data.baseline} (points)`,
    text: (g, i) => (differenceOf.has(i) ? under(signed(100 * differenceOf.get(i).sample.mean), bounds(differenceOf.get(i).sample, signed)) : DASH),
    value: (g, i) => differenceOf.get(i)?.sample.mean,
  },
  p: { name: "p (Holm)", text: (g, i) => (differenceOf.has(i) ? `${short(differenceOf.get(i).p)} (${short(differenceOf.get(i).corrected)})` : DASH), value: (g, i) => differenceOf.get(i)?.p },
  firing: { name: "firing rate (%)", ...plain("firing", 100, 1) },
  gradient: { name: "gradient available (%)", ...plain("gradient", 100, 1) },
  layers: { name: "over layers (%)", ...plain("layers", 100, 1) },
  energy: { name: "energy (nJ)", ...mean("energy") },
  parameters: { name: "parameters", text: (g) => grouped(g.parameters), value: (g) => g.parameters },
  epoch: { name: "s per epoch", ...mean("epoch") },
  memory: { name: "peak memory (MiB)", text: (g) => (g.memory ? under(grouped(g.memory.mean), g.memory_of) : DASH), value: (g) => g.memory?.mean },
  published: { name: "published (%)", text: (g) => (g.published ? fixed(g.published[0]) + (g.published[1] === null ? "" : ` ± ${fixed(g.published[1])}`) : DASH), value: (g) => g.published?.[0] },
};
for (const { key, name, head, factor } of data.neurobench) {
  COLUMNS[key] = {
    name: head,
    text: (g) => (g.neurobench[name] === undefined ? DASH : amount(factor * g.neurobench[name])),
    value: (g) => g.neurobench[name],
  };
}

// The name, the chosen columns, and a picture of the seeds beside the accuracy.
function shownColumns() {
  const first = { name: "method", text: (g, i) => [key(i), " ", ...breakable(g.name)], value: (g) => g.name };
  const seeds = { name: "seeds and interval", text: (g, i) => strip(i, g, domain), class: "screen wide-only" };
  return [first, ...data.columns.flatMap((name) => (name === "test" ? [COLUMNS.test, seeds] : [COLUMNS[name]]))];
}
const domain = extent(data.groups.flatMap((group) => [...group.values, group.final.low, group.final.high]), 0.04);

function results() {
  const columns = shownColumns();
  const body = element("tbody", {}, ...data.groups.map((group, index) => {
    const base = data.paired.some((pair) => pair.against === index);
    return element("tr", { "data-row": index, class: base ? "baseline" : null }, ...columns.map((column) => element("td", { class: column.class }, column.text(group, index))));
  }));
  const header = columns.map((column) => {
    if (!column.value) return element("th", { class: column.class }, column.name);
    const cell = element("th", { class: column.class }, element("button", { type: "button" }, column.name));
    cell.firstChild.addEventListener("click", () => sortBy(cell, column));
    return cell;
  });
  function sortBy(cell, column) {
    const up = cell.getAttribute("aria-sort") === "descending";
    header.forEach((one) => one.removeAttribute("aria-sort"));
    cell.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.children].sort((one, other) => {
      const [a, b] = [one, other].map((row) => column.value(data.groups[row.dataset.row], Number(row.dataset.row)) ?? -Infinity);
      return (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
    });
    body.append(...rows);
  }
  const csvRows = () => [
    ["group", "n", "seeds", "accuracies", ...["final", "best", "firing", "gradient", "energy", "epoch", "memory"].flatMap((name) => [name + "_mean", name + "_sd", name + "_low", name + "_high"]), "macs", "parameters", "published"],
    ...data.groups.map((g) => [g.name, g.final.n, g.seeds.join(" "), g.values.join(" "), ...["final", "best", "firing", "gradient", "energy", "epoch", "memory"].flatMap((name) => ["mean", "sd", "low", "high"].map((part) => g[name]?.[part])), g.macs, g.parameters, g.published?.[0]]),
  ];
  const markdown = element("button", { type: "button", "data-copy": "markdown" }, "Copy Markdown");
  markdown.addEventListener("click", () => copy(markdown, data.markdown));
  const latex = element("button", { type: "button", "data-copy": "latex" }, "Copy LaTeX");
  latex.addEventListener("click", () => copy(latex, data.latex));
  main.append(element("section", { id: "results" },
    element("div", { class: "bar" }, element("h2", {}, "Results"), markdown, latex, element("button", { type: "button", "data-csv": "results", onclick: () => download("results.csv", csvText(csvRows())) }, "CSV")),
    data.equal ? element("p", { class: "equal" }, data.equal) : null,
    element("div", { class: "scroll" }, element("table", { class: "wide results" }, element("thead", {}, element("tr", {}, ...header)), body)),
    element("p", { class: "note below" }, data.caption)));
  figures.push({ id: "results", rows: csvRows, draw: () => {} });
}

function published() {
  if (!data.published.length) return;
  const rows = data.published.map((one) => element("tr", {},
    element("td", { class: "left" }, one.recipe, one.when ? element("div", { class: "sub" }, one.when) : null),
    element("td", {}, element("b", {}, fixed(one.accuracy) + (one.spread === null ? "" : ` ± ${fixed(one.spread)}`))),
    element("td", {}, one.groups.length ? one.groups.map((index) => element("div", {}, key(index), " ", `${data.groups[index].name}: ${spread(data.groups[index].final, 100)}`)) : DASH),
    element("td", { class: "left wrap" }, one.groups.length ? "same settings" : `different settings: ${one.differs}`),
    element("td", { class: "left wrap" }, one.source)));
  main.append(element("section", { id: "published" }, element("div", { class: "bar" }, element("h2", {}, "Published numbers"), element("button", { type: "button", "data-csv": "published", onclick: () => download("published.csv", csvText(publishedRows())) }, "CSV")),
    element("p", { class: "note" }, "As printed in the papers of these runs' recipes, not measured here. Papers may select their epoch by test accuracy; this page never does."),
    element("div", { class: "scroll" }, element("table", { class: "wide" }, element("thead", {}, element("tr", {}, ...["recipe", "published (%)", "here (%)", "comparable?", "source"].map((text, place) => element("th", { class: place === 0 || place > 2 ? "left" : null }, text)))), element("tbody", {}, ...rows)))));
  const publishedRows = () => [["recipe", "when", "accuracy", "spread", "groups", "differs", "source"], ...data.published.map((one) => [one.recipe, one.when, one.accuracy, one.spread, one.groups.map((index) => data.groups[index].name).join("; "), one.differs, one.source])];
  figures.push({ id: "published", rows: publishedRows, draw: () => {} });
}

function runs() {
  const versions = (run) => Object.entries(run.versions ?? {}).map(([name, version]) => `${name} ${version}`).join(", ");
  const entry = (run) =>
    element("details", { "data-run": run.path },
      element("summary", {}, `seed ${run.seed}: ${percent(run.final)} %`, element("span", { class: "sub" }, `  ${run.path}`)),
      element("pre", { class: "wrap" }, run.command || "(command not recorded)"),
      element("p", { class: "sub" }, [run.started && `started ${run.started}`, run.host, run.commit, run.code, versions(run)].filter(Boolean).join("  ·  ")),
      element("pre", { class: "wrap" }, Object.entries(run.config).map(([name, value]) => `${name}=${value}`).join("\n") || "(no other settings)"));
  const list = data.groups.map((group, index) =>
    element("details", { open: data.runs.length <= 12 }, element("summary", {}, key(index), ` ${group.name}`, element("span", { class: "sub" }, `  ${group.final.n} run${group.final.n > 1 ? "s" : ""}`)), ...data.runs.filter((run) => run.group === index).map(entry)));
  main.append(element("section", { id: "runs" }, element("div", { class: "bar" }, element("h2", {}, "Runs"), element("button", { type: "button", "data-csv": "runs", onclick: () => download("runs.csv", csvText(runRows())) }, "CSV")),
    element("p", { class: "note" }, "The command and the own settings of every run. The settings that all runs share are below."),
    ...list,
    element("details", {}, element("summary", {}, "Settings shared by all runs"), element("pre", {}, data.config))));
  const runRows = () => [["group", "seed", "path", "final", "best", "started", "host", "commit", "code", "command"], ...data.runs.map((run) => [data.groups[run.group].name, run.seed, run.path, run.final, run.best, run.started, run.host, run.commit, run.code, run.command])];
  figures.push({ id: "runs", rows: runRows, draw: () => {} });
}

function excluded() {
  if (!data.excluded.length) return;
  main.append(element("section", { id: "excluded" }, element("div", { class: "bar" }, element("h2", {}, "Left out")),
    element("p", { class: "note" }, "Found, but not part of any number on this page."),
    element("div", { class: "scroll" }, element("table", { class: "wide" }, element("thead", {}, element("tr", {}, ...["run", "why"].map((text) => element("th", { class: "left" }, text)))),
      element("tbody", {}, ...data.excluded.map((one) => element("tr", {}, element("td", { class: "left wrap" }, element("code", {}, one.path)), element("td", { class: "left wrap" }, one.reason))))))));
}

function contents() {
  const sections = [...document.querySelectorAll("main > section")];
  document.getElementById("contents").append(...sections.map((one) => element("a", { href: `#${one.id}` }, one.querySelector("h2").textContent)));
  document.getElementById("footer").append(`Made ${data.made.replace("T", " ")} with `, element("code", {}, data.command), ". This file contains all of its data and needs no network.");
}

function theme() {
  const button = document.getElementById("theme");
  const order = ["auto", "light", "dark"];
  const text = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  let now = "auto";
  const show = () => {
    button.textContent = text[now];
    if (now === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = now;
  };
  button.addEventListener("click", () => {
    now = order[(order.indexOf(now) + 1) % order.length];
    show();
  });
  show();
}

head();
theme();
chips();
results();
differences();
crossed();
overDataSets();
curves();
heats();
paths();
energy();
sweeps();
classes();
published();
runs();
excluded();
contents();
update();

let width = innerWidth;
addEventListener("resize", () => {
  // A phone's address bar changes only the height, which needs no redrawing.
  if (innerWidth === width) return;
  width = innerWidth;
  update();
});
addEventListener("scroll", hideTip, { passive: true });
// On paper a figure is as wide as a column of text, and so are its letters.
addEventListener("beforeprint", () => {
  document.querySelectorAll("#notes details").forEach((one) => (one.open = true));
  figures.forEach((one) => one.draw(PAPER));
});
addEventListener("afterprint", update);
