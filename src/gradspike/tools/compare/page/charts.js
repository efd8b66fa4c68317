// Charts. Each draws into a host element, and again when the selection of groups changes.

function canvas(host, width, height, label) {
  const made = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  host.replaceChildren(made);
  return made;
}

function axes(made, x, y, box, { xTitle, yTitle, xTicks, whole }) {
  const across = xTicks ?? x.ticks(Math.max(2, Math.floor((box.right - box.left) / 75))).filter((tick) => !whole || Number.isInteger(tick));
  for (const tick of y.ticks(Math.max(2, Math.floor((box.bottom - box.top) / 46)))) {
    made.append(
      svg("line", { class: "axis", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: box.left - 7, y: y(tick) + 4, "text-anchor": "end" }, y.text(tick)),
    );
  }
  for (const tick of across) {
    const [value, text] = Array.isArray(tick) ? tick : [tick, whole ? String(tick) : x.text(tick)];
    made.append(
      svg("line", { class: "axis", x1: x(value), x2: x(value), y1: box.bottom, y2: box.bottom + 4 }),
      svg("text", { x: x(value), y: box.bottom + 18, "text-anchor": "middle" }, text),
    );
  }
  made.append(
    svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" }, xTitle),
    svg("text", { x: 2, y: 12 }, yTitle),
  );
}

const plotBox = (width, height) => ({ left: 52, right: width - 14, top: 24, bottom: height - 42 });

// series: [{index, name, x: [...], mean: [...], sd: [...] | null, seeds: [[...]] | null, marks: bool}]
// Single seeds are thin, the mean lies on top; the band of one standard deviation is that of the series pointed at.
function lineChart(host, width, series, { xTitle, yTitle, label, xTicks, log, logY, whole, show = short }) {
  const height = Math.round(Math.min(380, Math.max(240, width * 0.34)));
  const made = canvas(host, width, height, label);
  const box = plotBox(width, height);
  const spread = series.flatMap((one) => one.seeds?.flat() ?? one.mean.flatMap((mean, place) => [mean - (one.sd?.[place] ?? 0), mean + (one.sd?.[place] ?? 0)]));
  const values = [...spread, ...series.flatMap((one) => one.mean)].filter((value) => value !== null && (!logY || value > 0));
  const xs = series.flatMap((one) => one.x);
  const y = logY && values.length ? logarithmic([Math.min(...values) * 0.9, Math.max(...values) * 1.1], [box.bottom, box.top]) : linear(extent(values), [box.bottom, box.top]);
  const up = (value) => y(logY ? Math.max(value, Math.min(...values)) : value);
  const margin = series.some((one) => one.marks) ? 0.06 : 0.01;
  const x = log ? logarithmic([Math.min(...xs) * 0.85, Math.max(...xs) * 1.18], [box.left, box.right]) : linear(extent(xs, margin), [box.left, box.right]);
  axes(made, x, y, box, { xTitle, yTitle, xTicks, whole });
  const line = (xValues, yValues, attributes) =>
    svg("polyline", { points: xValues.map((value, place) => [value, yValues[place]]).filter(([, value]) => value !== null).map(([value, other]) => `${x(value)},${up(other)}`).join(" "), fill: "none", "stroke-linejoin": "round", ...attributes });
  const [bands, thin, lines] = [svg("g"), svg("g"), svg("g")];
  for (const one of series) {
    const { colour, dash, mark: kind } = styles[one.index];
    const there = one.x.map((value, place) => ({ x: x(value), mean: one.mean[place], sd: one.sd?.[place] ?? 0 })).filter((point) => point.mean !== null);
    if (!there.length) continue;
    if (one.sd && !one.marks) {
      const edge = (side) => there.map((point) => `${point.x},${up(point.mean + side * point.sd)}`);
      bands.append(svg("polygon", { "data-band": one.index, visibility: "hidden", points: [...edge(1), ...edge(-1).reverse()].join(" "), fill: colour, "fill-opacity": 0.18 }));
    }
    if (one.seeds?.length > 1) for (const seed of one.seeds) thin.append(line(one.x, seed, { "data-seed": one.index, stroke: colour, "stroke-width": 0.8, "stroke-opacity": 0.45 }));
    if (!one.loose) lines.append(line(one.x, one.mean, { "data-group": one.index, stroke: colour, "stroke-width": 2.2, "stroke-dasharray": dash }));
    const every = one.marks ? 1 : Math.ceil(there.length / 8);
    there.forEach((point, place) => {
      if (one.marks && point.sd) lines.append(svg("line", { x1: point.x, x2: point.x, y1: up(point.mean - point.sd), y2: up(point.mean + point.sd), stroke: colour, "stroke-width": 1.5 }));
      if (place % every === 0 || place === there.length - 1) lines.append(mark(kind, point.x, up(point.mean), one.marks ? 4.5 : 3, { fill: colour }));
    });
  }
  const guide = svg("line", { class: "hover", y1: box.top, y2: box.bottom, visibility: "hidden" });
  const area = svg("rect", { x: box.left, y: box.top, width: Math.max(1, box.right - box.left), height: box.bottom - box.top, fill: "transparent" });
  const band = (index) => bands.childNodes.forEach((one) => one.setAttribute("visibility", Number(one.dataset.band) === index ? "visible" : "hidden"));
  const nearestPlace = (xValues, at) => xValues.reduce((best, value, place) => (Math.abs(x(value) - at) < Math.abs(x(xValues[best]) - at) ? place : best), 0);
  area.addEventListener("pointermove", (event) => {
    const frame = made.getBoundingClientRect();
    const [at, height] = [((event.clientX - frame.left) / frame.width) * width, ((event.clientY - frame.top) / frame.width) * width];
    if (!xs.length) return;
    const here = series.map((one) => ({ one, place: nearestPlace(one.x, at) })).filter(({ one, place }) => one.mean[place] !== null && one.mean[place] !== undefined);
    const nearest = here.reduce((best, now) => (Math.abs(x(now.one.x[now.place]) - at) < Math.abs(x(best) - at) ? now.one.x[now.place] : best), xs[0]);
    guide.setAttribute("x1", x(nearest));
    guide.setAttribute("x2", x(nearest));
    guide.setAttribute("visibility", "visible");
    const shared = here.filter(({ one, place }) => one.x[place] === nearest || !whole);
    const pointedAt = here.reduce((best, now) => (best === null || Math.abs(up(now.one.mean[now.place]) - height) < Math.abs(up(best.one.mean[best.place]) - height) ? now : best), null);
    band(pointedAt?.one.index);
    const rows = shared
      .sort((a, b) => b.one.mean[b.place] - a.one.mean[a.place])
      .map(({ one, place }) => [one.index, one.name, show(one.mean[place]) + (one.sd ? ` ± ${show(one.sd[place])}` : "")]);
    const text = xTicks?.find(([value]) => value === nearest)?.[1] ?? short(nearest);
    showTip(event, `${xTitle} ${text}`, rows);
  });
  area.addEventListener("pointerleave", () => {
    guide.setAttribute("visibility", "hidden");
    band(null);
    hideTip();
  });
  made.append(bands, thin, lines, guide, area);
}

// points: [{index, name, x, y, low, high, tip: [[...]]}]
// The front: points that no other one beats in both, less of x and more of y.
function scatterChart(host, width, points, { xTitle, yTitle, label, log }) {
  const height = Math.round(Math.min(380, Math.max(260, width * 0.36)));
  const made = canvas(host, width, height, label);
  const box = plotBox(width, height);
  const xs = points.map((one) => one.x);
  const x = log ? logarithmic([Math.min(...xs) * 0.8, Math.max(...xs) * 1.25], [box.left, box.right]) : linear(extent(xs, 0.12), [box.left, box.right]);
  const y = linear(extent(points.flatMap((one) => [one.low, one.high, one.y]), 0.08), [box.bottom, box.top]);
  axes(made, x, y, box, { xTitle, yTitle });
  const front = points.filter((one) => !points.some((other) => other.x <= one.x && other.y >= one.y && (other.x < one.x || other.y > one.y))).sort((a, b) => a.x - b.x);
  if (front.length > 1) made.append(svg("polyline", { class: "front", points: front.map((one) => `${x(one.x)},${y(one.y)}`).join(" "), fill: "none" }));
  const taken = points.map((one) => ({ left: x(one.x) - 8, right: x(one.x) + 8, top: y(one.y) - 8, bottom: y(one.y) + 8 }));
  for (const one of points) {
    const { colour, mark: kind } = styles[one.index];
    if (one.low !== null) made.append(svg("line", { x1: x(one.x), x2: x(one.x), y1: y(one.low), y2: y(one.high), stroke: colour, "stroke-width": 2 }));
    const dot = svg("g", { "data-group": one.index }, mark(kind, x(one.x), y(one.y), 6, { fill: colour, stroke: "var(--paper)", "stroke-width": 1.5 }), svg("circle", { cx: x(one.x), cy: y(one.y), r: 14, fill: "transparent" }));
    made.append(pointed(dot, one.name, () => one.tip));
  }
  const bars = points.filter((one) => one.low !== null).map((one) => ({ left: x(one.x) - 2, right: x(one.x) + 2, top: y(one.high), bottom: y(one.low) }));
  for (const one of points) nameBeside(made, taken, bars, box, x(one.x), y(one.y), one.name);
}

// A name beside its mark, on the first side that is free of marks, intervals and other names, else, where there is room for
// long intervals, of marks and names. If none is, only the legend has it.
function nameBeside(made, taken, bars, box, x, y, name) {
  const long = name.length * 6.4;
  const sides = [["start", 11, 4], ["end", -11, 4], ["start", 8, -10], ["start", 8, 18], ["end", -8, -10], ["end", -8, 18]];
  const spots = sides.map(([anchor, dx, dy]) => {
    const left = anchor === "start" ? x + dx : x + dx - long;
    return { anchor, dx, dy, left, right: left + long, top: y + dy - 10, bottom: y + dy + 3 };
  });
  const inside = spots.filter((spot) => spot.left > box.left && spot.right < box.right && spot.top > box.top - 8 && spot.bottom < box.bottom);
  const free = (others) => inside.find((spot) => !others.some((other) => other.left < spot.right && spot.left < other.right && other.top < spot.bottom && spot.top < other.bottom));
  const spot = free([...taken, ...bars]) ?? (box.right > 480 ? free(taken) : undefined);
  if (!spot) return;
  taken.push(spot);
  made.append(svg("text", { class: "strong", x: x + spot.dx, y: y + spot.dy, "text-anchor": spot.anchor }, name));
}

// rows: [{index, name, mean, low, high, values, note, tip}]
function forestChart(host, width, rows, { xTitle, label }) {
  const narrow = width < 640;
  const step = narrow ? 52 : 34;
  const height = rows.length * step + 66;
  const made = canvas(host, width, height, label);
  const longest = Math.max(...rows.map((row) => row.name.length));
  const box = { left: narrow ? 10 : Math.min(300, longest * 7.2 + 46), right: width - (narrow ? 10 : 190), top: 10, bottom: height - 44 };
  const ends = rows.flatMap((row) => [row.low, row.high, row.mean, 0, ...row.values]);
  const x = linear(extent(ends, 0.06), [box.left, box.right]);
  for (const tick of x.ticks(Math.max(2, Math.floor((box.right - box.left) / 80))))
    made.append(svg("line", { class: "axis", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom }), svg("text", { x: x(tick), y: box.bottom + 18, "text-anchor": "middle" }, signed(tick, tick % 1 ? 1 : 0)));
  made.append(svg("line", { class: "zero", x1: x(0), x2: x(0), y1: box.top, y2: box.bottom }));
  made.append(svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" }, xTitle));
  rows.forEach((row, place) => {
    const { colour, mark: kind } = styles[row.index];
    const y = box.top + (place + (narrow ? 0.68 : 0.5)) * step;
    const line = svg("g", { "data-group": row.index });
    if (narrow) line.append(svg("text", { class: "strong", x: box.left, y: y - 17 }, row.name), svg("text", { class: "number", x: box.right, y: y - 17, "text-anchor": "end" }, row.note));
    else line.append(mark(kind, 8, y, 4, { fill: colour }), svg("text", { class: "strong", x: 20, y: y + 4 }, row.name), svg("text", { class: "number", x: box.right + 14, y: y + 4 }, row.note));
    if (row.low !== null) line.append(svg("line", { x1: x(row.low), x2: x(row.high), y1: y, y2: y, stroke: colour, "stroke-width": 5, "stroke-opacity": 0.45 }));
    for (const value of row.values) line.append(svg("circle", { cx: x(value), cy: y + 8, r: 2, fill: "var(--soft)" }));
    line.append(mark(kind, x(row.mean), y, 5, { fill: colour }), svg("rect", { x: 0, y: y - step / 2, width, height: step, fill: "transparent" }));
    made.append(pointed(line, row.name, () => row.tip));
  });
}

// The colours of a heat map from 0 (or `from`) to `most`, with both ends as text.
function scaleBar(most, text, from = 0) {
  const made = svg("svg", { class: "chart scale", width: 260, height: 30, viewBox: "0 0 260 30", role: "img", "aria-label": `colours from ${text(from)} to ${text(most)}` });
  for (let k = 0; k < 40; k++) made.append(svg("rect", { x: 1 + k * 6.45, y: 1, width: 6.6, height: 11, style: `fill:color-mix(in oklab, var(--heat-high) ${(100 * k) / 39}%, var(--heat-low))` }));
  made.append(svg("rect", { x: 0.5, y: 0.5, width: 259, height: 12, fill: "none", stroke: "var(--line)" }));
  made.append(svg("text", { x: 0, y: 26 }, text(from)), svg("text", { x: 130, y: 26, "text-anchor": "middle" }, text((from + most) / 2)), svg("text", { x: 260, y: 26, "text-anchor": "end" }, text(most)));
  return made;
}

// A name in at most `most` letters. Of a path (blocks.3.neuron1) the end stays, of other names both ends.
function shortened(name, most) {
  if (name.length <= most) return name;
  const head = /^\w+(\.\w+)+$/.test(name) ? 0 : Math.floor((most - 1) / 2);
  return `${name.slice(0, head)}…${name.slice(name.length - (most - 1 - head))}`;
}

// values: [row][column], 0 to `most`; names of rows and columns; text(value) in each cell if there is room
function heatChart(host, width, values, { rowNames, columnNames, most, text, tipTitle, label, labelWidth, cellHeight = 22, xTitle, yTitle }) {
  const columns = Math.max(...values.map((row) => row.length), 1);
  const left = labelWidth ?? Math.min(width * (columns > 4 ? 0.42 : 0.58), Math.max(...rowNames.map((name) => name.length)) * 6.6 + 12);
  const top = yTitle ? 18 : 4;
  const cell = (width - left - 2) / columns;
  const tall = Math.min(cellHeight, Math.max(9, 420 / Math.max(values.length / 2, 1)));
  const height = top + values.length * tall + (xTitle ? 36 : 20);
  const made = canvas(host, width, height, label);
  const names = rowNames.map((name) => shortened(name, Math.floor((left - 8) / 6.6)));
  if (yTitle) made.append(svg("text", { x: 0, y: 11 }, yTitle));
  // All cells have numbers or none: a few would look like the only ones measured.
  const roomy = tall >= 14 && values.flat().every((value) => cell > text(value).length * 7 + 3);
  values.forEach((row, i) => {
    if (tall >= 11 || i % Math.ceil(12 / tall) === 0) made.append(svg("text", { x: left - 6, y: top + (i + 0.5) * tall + 4, "text-anchor": "end" }, names[i]));
    row.forEach((value, k) => {
      const share = value === null ? 0 : Math.max(0, Math.min(1, value / (most || 1)));
      const box = svg("rect", { x: left + k * cell, y: top + i * tall, width: Math.max(0.5, cell - 1), height: Math.max(0.5, tall - 1), rx: 2, style: `fill:color-mix(in oklab, var(--heat-high) ${(100 * share).toFixed(1)}%, var(--heat-low))` });
      const written = text(value);
      const group = svg("g", {}, box);
      if (written && roomy)
        group.append(svg("text", { x: left + (k + 0.5) * cell, y: top + (i + 0.5) * tall + 4, "text-anchor": "middle", style: `fill:var(--heat-ink-${share > 0.46 ? "high" : "low"});font-size:11px` }, written));
      made.append(pointed(group, tipTitle(i, k), () => [[null, "", text(value, true)]]));
    });
  });
  const every = Math.ceil(Math.max(...columnNames.map((name) => name.length)) * 7 / cell) || 1;
  columnNames.forEach((name, k) => k % every === 0 && made.append(svg("text", { x: left + (k + 0.5) * cell, y: top + values.length * tall + 14, "text-anchor": "middle" }, name)));
  if (xTitle) made.append(svg("text", { x: left + (width - left) / 2, y: height - 4, "text-anchor": "middle" }, xTitle));
}

// Seeds as dots and the interval as a bar, on one scale for all rows of a table.
function strip(index, group, domain) {
  const { colour, mark: kind } = styles[index];
  const x = linear(domain, [4, 136]);
  const made = svg("svg", { width: 104, height: 18, viewBox: "0 0 140 18", role: "img", "aria-label": `${group.name}: ${percent(group.final.mean)} %` });
  made.append(svg("line", { class: "axis", x1: 0, x2: 140, y1: 9, y2: 9 }));
  if (group.final.low !== null) made.append(svg("line", { x1: x(group.final.low), x2: x(group.final.high), y1: 9, y2: 9, stroke: colour, "stroke-width": 5, "stroke-opacity": 0.4 }));
  for (const value of group.values) made.append(svg("circle", { cx: x(value), cy: 9, r: 1.8, fill: "var(--soft)" }));
  made.append(mark(kind, x(group.final.mean), 9, 4, { fill: colour }));
  return pointed(made, group.name, () => [
    ...group.values.map((value, place) => [null, `seed ${group.seeds[place]}`, `${percent(value)} %`]),
    [null, "95 % interval", range(group.final.low, group.final.high, 100)],
  ]);
}
