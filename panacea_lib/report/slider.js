// The slider of λ: it picks the nearest evaluated λ and shows what was measured there.
// Texts are set as textContent and never parsed, so nothing that a model wrote can act.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const at = (id) => document.getElementById("slider-" + id);
  const data = JSON.parse(at("data").textContent);
  const names = data.dimensions;
  const m = names.length;
  const weights = Array.from(document.querySelectorAll("#slider .weight"));
  const chart = at("chart");

  // ---- λ

  function asked() {
    const given = weights.map((input) => Number(input.value));
    if (m === 2) return [given[0] / 100, 1 - given[0] / 100];
    const total = given.reduce((a, b) => a + b, 0);
    return given.map((value) => (total > 0 ? value / total : 1 / m)); // all at 0: all alike
  }

  function nearest(preference) {
    const distances = data.grid.map((point) =>
      point.reduce((sum, weight, i) => sum + (weight - preference[i]) ** 2, 0));
    return distances.indexOf(Math.min(...distances));
  }

  function worded(preference) {
    return preference.map((weight, i) => `${names[i]} ${weight.toFixed(2)}`).join(", ");
  }

  // ---- drawing

  function drawn(kind, attributes, parent) {
    const node = document.createElementNS(SVG, kind);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    parent.append(node);
    return node;
  }

  function words(text, attributes, parent) {
    drawn("text", attributes, parent).textContent = text;
  }

  function blank(height, title) {
    const width = Math.max(chart.clientWidth, 240);
    chart.replaceChildren();
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }, chart);
    drawn("title", {}, svg).textContent = title;
    return { svg, width };
  }

  // From figures between low and high to pixels between from and to.
  function scale(low, high, from, to) {
    return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
  }

  // Round numbers inside [low, high], about `count` of them.
  function ticks(low, high, count) {
    const raw = (high - low || 1) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((factor) => raw <= factor * power);
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k += 1) found.push(k * step);
    return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  }

  // With the true minus, which is as wide as a digit.
  function signed(value, digits) {
    return value.toFixed(digits).replace("-", "−");
  }

  // The ends of all figures on the dimensions `which`, whatever the method: charts compare.
  function extent(which) {
    const all = which.flatMap((i) => [
      data.reference[i],
      ...(data.optimum || []).map((point) => point[i]),
      ...data.fronts.flat().flatMap((point) => point.rewards[i]),
    ]);
    const low = Math.min(...all), high = Math.max(...all);
    return [low - 0.05 * (high - low), high + 0.05 * (high - low)];
  }

  function drawFront(front, here) {
    const title = `mean ${names[1]} against mean ${names[0]}, a point per λ`;
    const { svg, width } = blank(Math.min(400, Math.max(260, chart.clientWidth * 0.72)), title);
    const height = svg.viewBox.baseVal.height;
    const [lowX, highX] = extent([0]), [lowY, highY] = extent([1]);
    const x = scale(lowX, highX, 44, width - 10), y = scale(lowY, highY, height - 42, 10);
    drawAxes(svg, x, y, ticks(lowX, highX, width / 90), ticks(lowY, highY, height / 60));
    words(`mean ${names[0]}`, { x: width - 10, y: height - 6, "text-anchor": "end" }, svg);
    words(`mean ${names[1]}`, { x: 50, y: 18 }, svg);
    const line = (points) => points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ");
    if (data.optimum) drawn("polyline", { class: "optimum", points: line(data.optimum) }, svg);
    const means = front.map((point) => point.rewards.map((figures) => figures[0]));
    drawn("polyline", { class: "chosen", points: line(means) }, svg);
    for (const [a, b] of means) drawn("circle", { class: "point", cx: x(a), cy: y(b), r: 3.5 }, svg);
    const [r0, r1] = [x(data.reference[0]), y(data.reference[1])];
    drawn("path", { class: "reference", d: `M${r0 - 5},${r1 - 5}l10,10m0,-10l-10,10` }, svg);
    const [[mx, lx, hx], [my, ly, hy]] = front[here].rewards;
    drawn("path", {
      class: "interval", d: `M${x(lx)},${y(my)}H${x(hx)}M${x(mx)},${y(ly)}V${y(hy)}`,
    }, svg);
    drawn("circle", { class: "here", "data-point": here, cx: x(mx), cy: y(my), r: 8 }, svg);
  }

  function drawAxes(svg, x, y, across, up) {
    const { width, height } = svg.viewBox.baseVal;
    for (const value of across.found) {
      drawn("path", { class: "grid", d: `M${x(value)},10V${height - 42}` }, svg);
      const place = { x: x(value), y: height - 26, "text-anchor": "middle", class: "tick" };
      words(signed(value, across.digits), place, svg);
    }
    for (const value of up.found) {
      drawn("path", { class: "grid", d: `M44,${y(value)}H${width - 10}` }, svg);
      const place = { x: 38, y: y(value) + 4, "text-anchor": "end", class: "tick" };
      words(signed(value, up.digits), place, svg);
    }
  }

  function drawBars(front, here) {
    const row = m > 5 ? 34 : 42, bottom = 10 + m * row;
    const { svg, width } = blank(bottom + 26, "mean reward per dimension at the chosen λ");
    const [low, high] = extent(names.map((_, i) => i));
    const x = scale(Math.min(low, 0), Math.max(high, 0), 8, width - 8);
    const across = ticks(Math.min(low, 0), Math.max(high, 0), width / 90);
    for (const value of across.found) {
      drawn("path", { class: "grid", d: `M${x(value)},4V${bottom}` }, svg);
      const place = { x: x(value), y: bottom + 18, "text-anchor": "middle", class: "tick" };
      words(signed(value, across.digits), place, svg);
    }
    const group = drawn("g", { class: "here", "data-point": here }, svg);
    front[here].rewards.forEach(([mean, from, to], i) => {
      const top = 6 + i * row, middle = top + row - 12;
      words(names[i], { x: 8, y: top + 11 }, svg);
      const [a, b] = [x(0), x(mean)].sort((p, q) => p - q);
      drawn("rect", { class: "bar", x: a, y: middle - 6, width: b - a, height: 12 }, group);
      drawn("path", { class: "interval", d: `M${x(from)},${middle}H${x(to)}` }, group);
      if (data.optimum) {
        const tick = `M${x(data.optimum[here][i])},${middle - 9}v18`;
        drawn("path", { class: "optimum", d: tick }, svg);
      }
      const r = x(data.reference[i]);
      drawn("path", { class: "reference", d: `M${r - 4},${middle - 4}l8,8m0,-8l-8,8` }, svg);
    });
  }

  // ---- telling

  function number(value) {
    return value === null ? "–" : signed(value, 3);
  }

  function show() {
    const preference = asked(), here = nearest(preference);
    const method = Number(at("method").value), front = data.fronts[method], point = front[here];
    at("asked").textContent = worded(preference);
    at("nearest").textContent = worded(data.grid[here]);
    weights.forEach((input, i) => {
      input.setAttribute("aria-valuetext", m === 2 ? worded(preference) : preference[i].toFixed(2));
    });
    names.forEach((_, i) => {
      const [mean, low, high] = point.rewards[i];
      at(`lambda-${i}`).textContent = data.grid[here][i].toFixed(2);
      at(`mean-${i}`).textContent = number(mean);
      at(`interval-${i}`).textContent = `${number(low)} to ${number(high)}`;
      at(`reference-${i}`).textContent = number(data.reference[i]);
      if (data.optimum) at(`optimum-${i}`).textContent = number(data.optimum[here][i]);
    });
    const [kl, low, high] = point.kl;
    at("kl").textContent = `${number(kl)} [${number(low)}, ${number(high)}]`;
    at("share").textContent = number(point.share);
    data.prompts.forEach((one, k) => {
      at(`answer-${k}`).textContent = one.answers[method][here] ?? "–";
    });
    if (m === 2) drawFront(front, here);
    else drawBars(front, here);
  }

  at("note").hidden = true;
  document.getElementById("slider").hidden = false;
  for (const input of [...weights, at("method")]) input.addEventListener("input", show);
  let width = 0;
  new ResizeObserver(() => {
    if (chart.clientWidth !== width) {
      width = chart.clientWidth;
      show();
    }
  }).observe(chart);
  show();
})();
