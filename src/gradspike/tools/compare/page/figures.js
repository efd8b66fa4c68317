// The figures. Each has an id, a title, a note, a way to draw it, and its rows for CSV.

const figures = [];

function figure(id, title, { note, controls = [], draw, rows }) {
  const host = element("div", { class: "plot" });
  const csv = element("button", { type: "button", "data-csv": id, onclick: () => download(`${id}.csv`, csvText(rows())) }, "CSV");
  const section = element(
    "section",
    { id, class: "figure" },
    element("div", { class: "bar" }, element("h2", {}, title), ...controls, csv),
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
    note:
      "Paired by seed: final test accuracy minus the baseline's, in percentage points. Mark: mean; bar: 95 % interval (" + data.intervals + "); dots: single seeds. p: two-sided sign-flip permutation test, in brackets with Holm's correction. " +
      (data.verdict ?? ""),
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

function curves() {
  const metrics = Object.keys(data.curves);
  if (!metrics.length) return;
  const chosen = chooser("Quantity", metrics.map((metric) => [metric, NAMES[metric]]), () => redraw("curves"));
  chosen.value = metrics.includes("val/accuracy") ? "val/accuracy" : metrics.includes("train/accuracy") ? "train/accuracy" : metrics[0];
  figure("curves", "Training", {
    note: "Mean over seeds; the band is one standard deviation on either side.",
    controls: [chosen],
    draw(host, width) {
      const metric = chosen.value;
      const found = data.curves[metric];
      const indices = shownOf(found);
      if (!indices.length) return empty(host);
      const factor = isShare(metric) ? 100 : 1;
      const series = indices.map((index) => ({ index, name: data.groups[index].name, x: found[index].x, mean: found[index].mean.map((v) => factor * v), sd: found[index].sd.map((v) => factor * v) }));
      lineChart(host, width, series, { xTitle: "epoch", yTitle: NAMES[metric], label: NAMES[metric], whole: true });
      legend(host, indices);
    },
    rows: () => [
      ["group", "quantity", "epoch", "mean", "sd"],
      ...metrics.flatMap((metric) => Object.entries(data.curves[metric]).flatMap(([index, one]) => one.x.map((x, place) => [data.groups[index].name, metric, x, one.mean[place], one.sd[place]]))),
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
      host.replaceChildren(grid);
      for (const index of indices) {
        const place = element("div");
        grid.append(element("div", { class: "small" }, element("h3", {}, key(index), data.groups[index].name), place));
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
  const indices = Object.keys(data.energy).map(Number);
  if (!indices.length) return;
  figure("energy", "Accuracy against energy", {
    note: "Estimated energy of one inference: 4.6 pJ for a multiply-accumulate (MAC), 0.9 pJ for an accumulate (AC); 32-bit, 45 nm (Horowitz, ISSCC 2014). A layer whose inputs are integers (spikes, spike counts) needs ACs only for its spikes; a layer with other inputs (images, averaged spikes) needs all its MACs, as does the ReLU twin. The twin computes a still image once, not T times. Memory access, neurons and norms are not counted. Vertical lines: 95 % interval (" + data.intervals + ").",
    draw(host, width) {
      const shown = indices.filter((index) => !hidden.has(index));
      if (!shown.length) return empty(host);
      const all = indices.map((index) => data.groups[index].energy.mean);
      const points = shown.map((index) => {
        const group = data.groups[index];
        const { ac, mac, skipping } = data.energy[index];
        return {
          index, name: group.name, x: group.energy.mean, y: 100 * group.final.mean, low: group.final.low === null ? null : 100 * group.final.low, high: group.final.high === null ? null : 100 * group.final.high,
          tip: [
            [null, "test accuracy", `${spread(group.final, 100)} %`], [null, "energy", `${short(group.energy.mean)} nJ`],
            [null, "AC", short(ac)], [null, "MAC", short(mac)], [null, "if zeros were skipped in MACs", `${short(skipping)} nJ`],
          ],
        };
      });
      scatterChart(host, width, points, { xTitle: "energy of one inference (nJ)", yTitle: "test accuracy (%)", label: "Accuracy against energy", log: Math.max(...all) / Math.min(...all) > 3 && Math.min(...all) > 0 });
      legend(host, shown);
      host.append(element("details", {}, element("summary", {}, "Layer by layer"), ...shown.map((index) => layerTable(index))));
    },
    rows: () => [
      ["group", "layer", "macs", "operations", "kind", "picojoules", "nonzero_inputs"],
      ...indices.flatMap((index) => data.energy[index].layers.map((one) => [data.groups[index].name, one.name, one.macs, one.operations, one.accumulates ? "AC" : "MAC", one.picojoules, one.activity])),
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
          .map((line) => {
            const there = line.points.filter((point) => !hidden.has(point.group)).sort((a, b) => place(a) - place(b));
            const final = there.map((point) => data.groups[point.group].final);
            return { index: line.points[0].group, name: line.name, x: there.map(place), mean: final.map((one) => 100 * one.mean), sd: final.map((one) => 100 * (one.sd ?? 0)), marks: true };
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
      heatChart(upper, width, shown.map((index) => data.classes[index].accuracy.map((value) => value - lowest)), {
        rowNames: shown.map((index) => data.groups[index].name), columnNames: names, most: 1 - lowest || 1, cellHeight: 26, xTitle: "class",
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
      heatChart(left, Math.max(240, left.clientWidth || width * 0.6), rates, {
        rowNames: names, columnNames: names, most: 1, cellHeight: 30, labelWidth: 34, xTitle: `prediction (${data.groups[index].name})`, yTitle: "class",
        text: (value, whole) => (whole ? `${percent(value)} %` : value < 0.005 ? "" : percent(value, 0)), tipTitle: (i, k) => `class ${i}, predicted ${k}`, label: "Confusion",
      });
    },
    rows: () => [
      ["group", "class", "accuracy", "sd", "samples_per_seed", ...(data.classes[indices[0]].matrix ? data.classes[indices[0]].accuracy.map((_, k) => `predicted_${k}`) : [])],
      ...indices.flatMap((index) => data.classes[index].accuracy.map((value, place) => [data.groups[index].name, place, value, data.classes[index].sd[place], data.classes[index].samples[place], ...(data.classes[index].matrix?.[place] ?? [])])),
    ],
  });
}
