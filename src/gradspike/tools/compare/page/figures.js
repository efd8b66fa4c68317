// The figures. Each has an id, a title, a note, a way to draw it, and its rows for CSV.

const figures = [];

function figure(id, title, { note, controls = [], draw, rows }) {
  const host = element("div", { class: "plot" });
  const csv = element("button", { type: "button", "data-csv": id, onclick: () => download(`${id}.csv`, csvText(rows())) }, "CSV");
  const section = element(
    "section",
    { id, class: "figure" },
    element("div", { class: "bar" }, element("h2", {}, title), ...controls, csv, ...exportButtons(id, host)),
    note ? element("p", { class: "note" }, note) : null,
    host,
  );
  document.getElementById("main").append(section);
  figures.push({ id, host, rows, draw: (width) => draw(host, width ?? Math.max(280, Math.round(host.clientWidth || 720))) });
}

function chooser(name, options, changed) {
  const made = element("select", { "aria-label": name, onchange: () => changed() }, ...options.map(([value, text]) => element("option", { value }, text)));
  return made;
}

const empty = (host, text = "All methods are switched off.") => host.replaceChildren(element("p", { class: "empty" }, text));

function legend(host, indices) {
  host.append(element("div", { class: "legend" }, ...indices.map((index) => element("span", {}, key(index), data.groups[index].name))));
}

const redraw = (id) => figures.find((one) => one.id === id).draw();
const shownOf = (values) => visible().filter((index) => values[index]);
const NAMES = {
  "train/loss": "training loss", "train/accuracy": "training accuracy (%)", "val/loss": "validation loss", "val/accuracy": "validation accuracy (%)",
  "val/firing_rate": "firing rate in validation (%)", firing_rate: "firing rate", gradient_available: "gradient-available share", theta: "threshold θ", kappa: "surrogate width κ",
};
const isShare = (metric) => /accuracy|firing_rate/.test(metric);

function differences() {
  if (!data.paired.length) return;
  figure("differences", `Differences to ${data.baseline}`, {
    note: `Paired by seed: final test accuracy minus that of ${data.baseline}, in percentage points, at equal settings. Mark: mean; bar: 95 % interval (${data.intervals}); dots: single seeds. p: two-sided sign-flip permutation test, in brackets with Holm's correction.`,
    draw(host, width) {
      const rows = data.paired
        .filter((pair) => !hidden.has(pair.group))
        .map((pair) => {
          const { sample } = pair;
          const against = data.groups[pair.against].name;
          return {
            index: pair.group, name: data.groups[pair.group].name, mean: 100 * sample.mean,
            low: sample.low === null ? null : 100 * sample.low, high: 100 * sample.high,
            values: pair.differences.map((value) => 100 * value),
            note: `${signed(100 * sample.mean)}  ·  p ${short(pair.p)} (${short(pair.corrected)})`,
            tip: [
              [null, `minus ${against}`, signed(100 * sample.mean)],
              [null, "95 % interval", range(sample.low, sample.high, 100, signed)],
              ...pair.seeds.map((seed, place) => [null, `seed ${seed}`, signed(100 * pair.differences[place])]),
            ],
          };
        });
      if (!rows.length) return empty(host);
      forestChart(host, width, rows, { xTitle: `percentage points above ${data.baseline}`, label: `Differences to ${data.baseline}` });
    },
    rows: () => [
      ["group", "against", "seeds", "mean", "sd", "low", "high", "p", "p_holm", "differences"],
      ...data.paired.map(({ group, against, seeds, sample, p, corrected, differences: values }) => [data.groups[group].name, data.groups[against].name, seeds.join(" "), sample.mean, sample.sd, sample.low, sample.high, p, corrected, values.join(" ")]),
    ],
  });
}

function crossed() {
  if (!data.crossed) return;
  tableSection("crossed", "Difference of differences", `Does the difference to ${data.baseline} depend on something else? The difference of each group, minus the same difference where one other key has its reference; paired by seed, in percentage points, with 95 % intervals (${data.intervals}).`, data.crossed);
}

function tableSection(id, title, note, { head, rows }) {
  const csv = () => [head, ...rows];
  main.append(element("section", { id }, element("div", { class: "bar" }, element("h2", {}, title), element("button", { type: "button", "data-csv": id, onclick: () => download(`${id}.csv`, csvText(csv())) }, "CSV")),
    element("p", { class: "note" }, note),
    element("div", { class: "scroll" }, element("table", { class: "wide" }, element("thead", {}, element("tr", {}, ...head.map((text) => element("th", {}, text)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, minus(cell))))))))));
  figures.push({ id, rows: csv, draw: () => {} });
}

function overDataSets() {
  const found = data.aggregate;
  if (!found) return;
  tableSection("data-sets", "Over the data sets", found.note, found);
  figure("profiles", "Performance profiles", {
    note: "The share of runs, over seeds and data sets, whose test accuracy is above the value on the horizontal axis. A curve above another one everywhere is better everywhere.",
    draw(host, width) {
      const series = found.profiles.map((mean, place) => ({ index: found.groups[place], name: found.rows[place][0], x: found.x, mean, sd: null }));
      lineChart(host, width, series, { xTitle: "test accuracy above (%)", yTitle: "share of runs (%)", label: "Performance profiles" });
      host.append(element("div", { class: "legend" }, ...series.map((one) => element("span", {}, key(one.index), one.name))));
    },
    rows: () => [["setting", "accuracy", "share"], ...found.profiles.flatMap((mean, place) => mean.map((value, k) => [found.rows[place][0], found.x[k], value]))],
  });
}

function curves() {
  const metrics = Object.keys(data.curves);
  if (!metrics.length) return;
  const again = () => redraw("curves");
  const chosen = chooser("Quantity", metrics.map((metric) => [metric, NAMES[metric]]), again);
  chosen.value = metrics.includes("val/accuracy") ? "val/accuracy" : metrics.includes("train/accuracy") ? "train/accuracy" : metrics[0];
  const across = chooser("Horizontal axis", [["epoch", "over epochs"], ...(Object.keys(data.clock).length ? [["time", "over time"]] : [])], again);
  const upwards = chooser("Vertical axis", [["linear", "linear"], ["log", "logarithmic"]], again);
  const single = Object.values(data.curves).every((found) => Object.values(found).every((one) => one.seeds));
  figure("curves", "Training", {
    note: `${single ? "Thin: single seeds; thick: their mean." : "Mean over seeds; there are too many runs to draw each."} Point at a line to see one standard deviation on either side. Time is that of training, without validation, mean over seeds.`,
    controls: [chosen, across, upwards],
    draw(host, width) {
      const metric = chosen.value;
      const found = data.curves[metric];
      const timed = across.value === "time";
      const indices = shownOf(found).filter((index) => !timed || data.clock[index]);
      if (!indices.length) return empty(host);
      const factor = isShare(metric) ? 100 : 1;
      const scaled = (values) => values.map((value) => factor * value);
      const series = indices.map((index) => ({ index, name: data.groups[index].name, x: timed ? found[index].x.map((epoch) => data.clock[index][epoch]) : found[index].x, mean: scaled(found[index].mean), sd: scaled(found[index].sd), seeds: found[index].seeds?.map(scaled) ?? null }));
      lineChart(host, width, series, { xTitle: timed ? "seconds of training" : "epoch", yTitle: NAMES[metric], label: NAMES[metric], whole: !timed, logY: upwards.value === "log" });
      legend(host, indices);
    },
    rows: () => [
      ["group", "quantity", "epoch", "seconds", "mean", "sd"],
      ...metrics.flatMap((metric) => Object.entries(data.curves[metric]).flatMap(([index, one]) => one.x.map((x, place) => [data.groups[index].name, metric, x, data.clock[index]?.[x], one.mean[place], one.sd[place]]))),
    ],
  });
}

function heats() {
  const quantities = Object.keys(data.heat);
  if (!quantities.length) return;
  const chosen = chooser("Quantity", quantities.map((one) => [one, NAMES[one]]), () => redraw("layers"));
  figure("layers", "Layers and time steps", {
    note: "Share of neurons at the last validation, mean over seeds: those that fire, or those with |u − θ| < κ / 2, which pass a gradient. Layers from input (top) to output, time steps from left to right.",
    controls: [chosen],
    draw(host, width) {
      const found = data.heat[chosen.value];
      const indices = shownOf(found);
      if (!indices.length) return empty(host);
      const most = Math.max(...Object.values(found).flatMap((one) => one.values.flat()).filter((value) => value !== null));
      const grid = element("div", { class: "several" });
      host.replaceChildren(element("div", { class: "scaled" }, element("span", {}, `${NAMES[chosen.value]}, % of neurons`), scaleBar(most, (value) => `${percent(value, 0)} %`)), grid);
      for (const index of indices) {
        const place = element("div");
        grid.append(element("div", { class: "small" }, element("h3", {}, key(index), element("span", {}, ...breakable(data.groups[index].name))), place));
        const one = found[index];
        heatChart(place, Math.max(150, place.clientWidth || 250), one.values, {
          rowNames: one.layers, columnNames: one.values[0].map((_, t) => `t${t}`), most,
          text: (value, whole) => (value === null ? DASH : whole ? `${percent(value)} %` : percent(value, 0)),
          tipTitle: (i, t) => `${data.groups[index].name}, ${one.layers[i]}, step ${t}`, label: `${NAMES[chosen.value]} of ${data.groups[index].name}`,
        });
      }
    },
    rows: () => [
      ["group", "quantity", "layer", "step", "value"],
      ...quantities.flatMap((quantity) => Object.entries(data.heat[quantity]).flatMap(([index, one]) => one.values.flatMap((row, i) => row.map((value, t) => [data.groups[index].name, quantity, one.layers[i], t, value])))),
    ],
  });
}

function paths() {
  const quantities = Object.keys(data.paths);
  if (!quantities.length) return;
  const names = [...new Set(Object.values(data.paths).flatMap((found) => Object.values(found).flatMap((one) => Object.keys(one.layers))))];
  const quantity = chooser("Quantity", quantities.map((one) => [one, NAMES[one]]), () => redraw("widths"));
  quantity.value = quantities.includes("kappa") ? "kappa" : quantities[0];
  const layer = chooser("Layer", names.map((name) => [name, name]), () => redraw("widths"));
  figure("widths", "Threshold and surrogate width", {
    note: "During training, mean over time steps and seeds, in units of the membrane potential.",
    controls: [quantity, layer],
    draw(host, width) {
      const found = data.paths[quantity.value];
      const series = shownOf(found)
        .filter((index) => found[index].layers[layer.value])
        .map((index) => ({ index, name: data.groups[index].name, x: found[index].x, mean: found[index].layers[layer.value], sd: null }));
      if (!series.length) return empty(host, "None of the visible methods has this layer.");
      lineChart(host, width, series, { xTitle: "optimiser step", whole: true, yTitle: `${NAMES[quantity.value]}, ${layer.value}`, label: NAMES[quantity.value] });
      legend(host, series.map((one) => one.index));
    },
    rows: () => [
      ["group", "quantity", "layer", "step", "mean"],
      ...quantities.flatMap((one) => Object.entries(data.paths[one]).flatMap(([index, found]) => Object.entries(found.layers).flatMap(([name, values]) => values.map((value, place) => [data.groups[index].name, one, name, found.x[place], value])))),
    ],
  });
}

function energy() {
  const indices = data.groups.map((_, index) => index).filter((index) => data.energy[index] || data.groups[index].firing);
  if (!indices.length) return;
  const options = [["energy", "energy"], ["firing", "firing rate"]].filter(([name]) => data.groups.some((group) => group[name]));
  const chosen = chooser("Cost", options, () => redraw("energy"));
  if (data.energy_reason && options.length > 1) chosen.value = "firing";
  figure("energy", "Accuracy against cost", {
    note: `${data.energy_reason ? `${data.energy_reason} ` : ""}Grey line: the front, groups that no other one beats in both. Vertical lines: 95 % interval (${data.intervals}). Energy of one inference is estimated: 4.6 pJ for a multiply-accumulate (MAC), 0.9 pJ for an accumulate (AC); 32-bit, 45 nm (Horowitz, ISSCC 2014). A layer whose inputs are integers (spikes, spike counts) needs ACs only for its spikes; a layer with other inputs (images, averaged spikes) needs all its MACs, as does the ReLU twin. The twin computes a still image once, not T times. Memory access, neurons and norms are not counted.`,
    controls: options.length > 1 ? [chosen] : [],
    draw(host, width) {
      const isEnergy = chosen.value === "energy";
      const cost = (index) => (isEnergy ? data.groups[index].energy?.mean : 100 * data.groups[index].firing?.mean);
      const all = indices.filter((index) => Number.isFinite(cost(index)));
      const shown = all.filter((index) => !hidden.has(index));
      if (!shown.length) return empty(host);
      const points = shown.map((index) => {
        const group = data.groups[index];
        const more = data.energy[index];
        return {
          index, name: group.name, x: cost(index), y: 100 * group.final.mean, low: group.final.low === null ? null : 100 * group.final.low, high: group.final.high === null ? null : 100 * group.final.high,
          tip: [
            [null, "test accuracy", `${spread(group.final, 100)} %`], [null, "firing rate", group.firing ? `${spread(group.firing, 100)} %` : DASH],
            ...(more ? [[null, "energy", `${amount(group.energy.mean)} nJ`], [null, "AC", short(more.ac)], [null, "MAC", short(more.mac)], [null, "if zeros were skipped in MACs", `${short(more.skipping)} nJ`]] : []),
          ],
        };
      });
      const costs = all.map(cost);
      scatterChart(host, width, points, { xTitle: isEnergy ? "energy of one inference (nJ)" : "firing rate, test split (%)", yTitle: "test accuracy (%)", label: "Accuracy against cost", log: Math.max(...costs) / Math.min(...costs) > 3 && Math.min(...costs) > 0 });
      legend(host, shown);
      const layered = shown.filter((index) => data.energy[index]);
      if (layered.length) host.append(element("details", {}, element("summary", {}, "Energy layer by layer"), ...layered.map((index) => layerTable(index))));
    },
    rows: () => [
      ["group", "layer", "macs", "operations", "kind", "picojoules", "nonzero_inputs"],
      ...Object.keys(data.energy).flatMap((index) => data.energy[index].layers.map((one) => [data.groups[index].name, one.name, one.macs, one.operations, one.accumulates ? "AC" : "MAC", one.picojoules, one.activity])),
    ],
  });
}

function layerTable(index) {
  const { layers } = data.energy[index];
  const head = ["layer", "MACs, dense", "inputs not zero", "operations", "", "energy (nJ)"];
  return element(
    "details", {},
    element("summary", {}, key(index), ` ${data.groups[index].name}`),
    element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, element("tr", {}, ...head.map((text) => element("th", {}, text)))),
      element("tbody", {}, ...layers.map((one) => element("tr", {}, ...[one.name, grouped(one.macs), one.activity === null ? DASH : `${percent(one.activity, 1)} %`, grouped(one.operations), one.accumulates ? "AC" : "MAC", short(one.picojoules / 1000)].map((text) => element("td", {}, text)))))),
    ),
  );
}

function sweeps() {
  for (const sweep of data.sweeps) {
    const points = sweep.lines.flatMap((line) => line.points);
    const numeric = points.every((point) => point.number !== null);
    const values = [...new Map(points.map((point) => [point.value, point])).values()].sort((a, b) => (numeric ? a.number - b.number : 0));
    const place = (point) => (numeric ? point.number : values.findIndex((one) => one.value === point.value));
    const numbers = values.map((one) => one.number);
    const log = numeric && numbers[0] > 0 && numbers.at(-1) / numbers[0] >= 10;
    figure(`sweep-${sweep.key.replaceAll(".", "-")}`, `Accuracy against ${sweep.key}`, {
      note: "Final test accuracy, mean over seeds; vertical lines are one standard deviation.",
      draw(host, width) {
        const series = sweep.lines
          .map((line, number, all) => {
            const beside = numeric ? 0 : (number - (all.length - 1) / 2) * Math.min(0.08, 0.6 / all.length);
            const there = line.points.filter((point) => !hidden.has(point.group)).sort((a, b) => place(a) - place(b));
            const final = there.map((point) => data.groups[point.group].final);
            return { index: line.points[0].group, name: line.name, x: there.map((point) => place(point) + beside), mean: final.map((one) => 100 * one.mean), sd: final.map((one) => 100 * (one.sd ?? 0)), marks: true, loose: !numeric };
          })
          .filter((one) => one.x.length);
        if (!series.length) return empty(host);
        const xTicks = values.length <= 8 || !numeric ? values.map((one) => [place(one), one.value]) : undefined;
        lineChart(host, width, series, { xTitle: sweep.key, yTitle: "test accuracy (%)", label: `Accuracy against ${sweep.key}`, xTicks, log });
        host.append(element("div", { class: "legend" }, ...series.map((one) => element("span", {}, key(one.index), one.name))));
      },
      rows: () => [
        ["line", sweep.key, "group", "n", "mean", "sd", "low", "high"],
        ...sweep.lines.flatMap((line) => line.points.map((point) => {
          const group = data.groups[point.group];
          return [line.name, point.value, group.name, group.final.n, group.final.mean, group.final.sd, group.final.low, group.final.high];
        })),
      ],
    });
  }
}

function classes() {
  const indices = Object.keys(data.classes).map(Number);
  if (!indices.length) return;
  const chosen = chooser("Group", indices.map((index) => [index, data.groups[index].name]), () => redraw("classes"));
  figure("classes", "Classes", {
    note: "Last epoch, test split. Top: accuracy of each class, mean over seeds. Bottom: confusion matrix, true class (row) and prediction (column) in percent of the samples of the class, all seeds together.",
    controls: [chosen],
    draw(host, width) {
      const shown = indices.filter((index) => !hidden.has(index));
      if (!shown.length) return empty(host);
      const upper = element("div");
      const lower = element("div", { class: "two", style: "margin-top:18px" });
      host.replaceChildren(upper, lower);
      const names = data.classes[shown[0]].accuracy.map((_, place) => String(place));
      const lowest = Math.min(...shown.flatMap((index) => data.classes[index].accuracy));
      upper.append(element("div", { class: "scaled" }, element("span", {}, "accuracy of a class, %"), scaleBar(1, (value) => `${percent(value, 0)} %`, lowest)));
      const grid = element("div");
      upper.append(grid);
      heatChart(grid, width, shown.map((index) => data.classes[index].accuracy.map((value) => value - lowest)), {
        rowNames: shown.map((index) => data.groups[index].name), columnNames: names, most: 1 - lowest || 1, cellHeight: 22, xTitle: "class",
        text: (value, whole) => (whole ? `${percent(value + lowest)} %` : percent(value + lowest, 0)), tipTitle: (i, k) => `${data.groups[shown[i]].name}, class ${k}`, label: "Accuracy by class",
      });
      const index = Number(chosen.value);
      const { matrix, worst, samples } = data.classes[index];
      const left = element("div");
      lower.append(left, element("div", {}, element("h3", { style: "margin:0;font-size:.9rem" }, `${data.groups[index].name}: most frequent confusions`), element("table", {},
        element("thead", {}, element("tr", {}, ...["class", "predicted", "samples, all seeds"].map((text) => element("th", {}, text)))),
        element("tbody", {}, ...worst.map((row) => element("tr", {}, ...row.map((value) => element("td", {}, grouped(value))))))),
        element("p", { class: "sub" }, `${grouped(samples.reduce((a, b) => a + b, 0))} test samples per seed.`)));
      if (!matrix) return empty(left, "Too many classes for a matrix.");
      const rates = matrix.map((row) => row.map((value) => value / Math.max(1, row.reduce((a, b) => a + b, 0))));
      // On paper it gets narrower with the whole page, and its letters must not.
      const wide = (left.clientWidth || width * 0.6) * Math.min(1, width / (host.clientWidth || width));
      heatChart(left, Math.max(240, wide), rates, {
        rowNames: names, columnNames: names, most: 1, cellHeight: 26, labelWidth: 34, xTitle: `prediction (${data.groups[index].name})`, yTitle: "class",
        text: (value, whole) => (whole ? `${percent(value)} %` : value < 0.005 ? "" : percent(value, 0)), tipTitle: (i, k) => `class ${i}, predicted ${k}`, label: "Confusion",
      });
    },
    rows: () => [
      ["group", "class", "accuracy", "sd", "samples_per_seed", ...(data.classes[indices[0]].matrix ? data.classes[indices[0]].accuracy.map((_, k) => `predicted_${k}`) : [])],
      ...indices.flatMap((index) => data.classes[index].accuracy.map((value, place) => [data.groups[index].name, place, value, data.classes[index].sd[place], data.classes[index].samples[place], ...(data.classes[index].matrix?.[place] ?? [])])),
    ],
  });
}
