"use strict";
// Draws the report that is in the page. All texts of the record become text nodes, so that no name is ever markup.
(() => {
  const report = JSON.parse(document.getElementById("report").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 400, HEIGHT = 150, LEFT = 46, BOTTOM = 16, TOP = 6;

  function node(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  function shape(tag, attributes) {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function scaled(value, step, names) {
    let at = 0;
    while (Math.abs(value) >= step && at < names.length - 1) { value /= step; at++; }
    const digits = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
    return value.toFixed(digits) + names[at];
  }
  function number(value, unit) {
    if (value === null || value === undefined) return "–";
    if (unit.startsWith("bytes")) return scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]) + unit.slice(5);
    if (unit === "%") return (value >= 10 ? value.toFixed(0) : value.toFixed(1)) + " %";
    if (unit === "ms" || unit === "cores") return Number(value.toFixed(value >= 10 ? 1 : 3)) + " " + unit;
    return scaled(value, 1000, ["", "k", "M", "G"]) + unit;
  }
  function time(seconds) {
    const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    const two = (n) => String(n).padStart(2, "0");
    if (report.seconds < 10) return seconds.toFixed(1) + " s";
    return hours ? hours + ":" + two(minutes) + ":" + two(whole % 60) : minutes + ":" + two(whole % 60);
  }
  function ceiling(value) {
    if (!(value > 0)) return 1;
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 1.5, 2, 3, 4, 5, 7.5, 10].map((n) => n * power).find((n) => n >= value * 0.999);
  }
  function ceilingOf(value, unit) {
    if (!unit.startsWith("bytes") || value < 1024) return ceiling(value);
    const step = 1024 ** Math.floor(Math.log(value) / Math.log(1024));
    return ceiling(value / step) * step;
  }

  const cursors = [];
  function chart(about) {
    const shown = about.lines.map(() => true);
    const slots = report.slots;
    const picture = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    picture.setAttribute("aria-label", about.title + ": " + about.lines.map(
      (line) => `${line.name} ${number(line.average, about.unit)} on average, at most ${number(line.peak, about.unit)}`).join("; "));
    const at = node("span", { class: "at" });
    const cells = [];
    const x = (slot) => LEFT + (WIDTH - LEFT) * (slots > 1 ? slot / (slots - 1) : 0.5);

    function stacks() {
      const below = new Array(slots).fill(0);
      return about.lines.map((line, index) => {
        if (!shown[index]) return null;
        let last = 0; // a slot without a sample is as the one before it
        return line.values.map((value, slot) => { const from = below[slot]; last = value === null ? last : value; below[slot] += last; return [from, below[slot]]; });
      });
    }
    function draw() {
      const parts = about.stacked ? stacks() : null;
      let most = 0;
      about.lines.forEach((line, index) => {
        if (shown[index]) line.values.forEach((value, slot) => { most = Math.max(most, parts ? parts[index][slot][1] : value || 0); });
      });
      const top = about.unit === "%" && most > 50 ? Math.max(100, ceiling(most)) : ceilingOf(most, about.unit);
      const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
      picture.replaceChildren();
      for (const share of [0, 0.5, 1]) {
        picture.append(shape("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(top * share), y2: y(top * share) }));
      }
      about.lines.forEach((line, index) => {
        if (!shown[index]) return;
        const color = `var(--c${index % 12})`;
        let path = "";
        if (parts) {
          const upper = parts[index].map((pair, slot) => `${x(slot).toFixed(1)},${y(pair[1]).toFixed(1)}`);
          const lower = parts[index].map((pair, slot) => `${x(slot).toFixed(1)},${y(pair[0]).toFixed(1)}`).reverse();
          picture.append(shape("path", { class: "area", d: `M${upper.join("L")}L${lower.join("L")}Z`, fill: color }));
          return;
        }
        let pen = false;
        line.values.forEach((value, slot) => {
          if (value === null) { return; }
          path += `${pen ? "L" : "M"}${x(slot).toFixed(1)},${y(value).toFixed(1)}`;
          pen = true;
        });
        if (slots === 1) path += `L${WIDTH},${path.split(",")[1]}`;
        picture.append(shape("path", { class: "trace", d: path || "M0,0", stroke: color }));
      });
      labels.replaceChildren();
      for (const share of [0, 0.5, 1]) {
        const label = node("span", {}, number(top * share, about.unit));
        label.style.top = `${(100 * y(top * share)) / HEIGHT}%`;
        labels.append(label);
      }
    }

    const labels = node("div", { class: "labels", "aria-hidden": "true" });
    const holder = node("div", { class: "plot" }, picture, labels);
    function point(slot) {
      at.textContent = slot === null ? "" : "at " + time(Math.min(report.seconds, report.width * (slot + 0.5)));
      picture.querySelectorAll(".cursor").forEach((old) => old.remove());
      if (slot !== null) picture.append(shape("line", { class: "cursor", x1: x(slot), x2: x(slot), y1: TOP, y2: HEIGHT - BOTTOM }));
      about.lines.forEach((line, index) => { cells[index].textContent = slot === null ? "" : number(line.values[slot], about.unit); });
    }
    cursors.push(point);
    picture.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      const share = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT);
      const slot = Math.min(slots - 1, Math.max(0, Math.round(share * (slots - 1))));
      cursors.forEach((each) => each(slot));
    });
    picture.addEventListener("pointerleave", () => cursors.forEach((each) => each(null)));

    const rows = about.lines.map((line, index) => {
      const swatch = shape("svg", { viewBox: "0 0 1 1", class: "swatch", "aria-hidden": "true" });
      swatch.append(shape("rect", { width: 1, height: 1, fill: `var(--c${index % 12})` }));
      const button = node("button", { type: "button", "aria-pressed": "true", title: "Show or hide" }, swatch, line.name);
      button.addEventListener("click", () => {
        shown[index] = !shown[index];
        button.setAttribute("aria-pressed", String(shown[index]));
        draw();
      });
      cells[index] = node("td", {});
      return node("tr", {}, node("td", { class: "name" }, button), cells[index],
        node("td", {}, number(line.average, about.unit)), node("td", {}, number(line.peak, about.unit)));
    });
    const head = node("tr", {}, node("th", { scope: "col" }, ""), node("th", { scope: "col" }, "then"),
      node("th", { scope: "col" }, "average"), node("th", { scope: "col" }, "peak"));
    const legend = node("div", { class: "scroll" }, node("table", { class: "legend" }, node("thead", {}, head), node("tbody", {}, ...rows)));
    const made = node("figure", {}, node("figcaption", {}, node("h3", {}, about.title), at), holder, legend);
    if (about.more) made.append(node("p", { class: "note" }, `${about.more} smaller ones are not shown.`));
    draw();
    return made;
  }

  function processes() {
    const names = ["Process", "PID", "CPU", "CPU peak", "Memory", "Threads", "Open files", "Switches/s", "Forced/s"];
    const head = node("tr", {}, ...names.map((name) => node("th", { scope: "col" }, name)));
    const rows = report.processes.map((one) => node("tr", {},
      node("td", { class: "name", title: one.command }, one.command), ...[
        String(one.pid), number(one.cpu, "cores"), number(one.peak, "cores"), number(one.memory, "bytes"),
        String(one.threads), one.files === null ? "–" : String(one.files), number(one.switches, ""), number(one.forced, ""),
      ].map((text) => node("td", {}, text))));
    return node("div", { class: "processes scroll" }, node("table", {}, node("thead", {}, head), node("tbody", {}, ...rows)));
  }

  const about = [`from ${report.header.started}`, `for ${time(report.seconds)}`, `${report.samples} samples`];
  if (report.header.kernel) about.push(`Linux ${report.header.kernel}`);
  if (report.header.cgroup) about.push(`cgroup v${report.header.cgroup}`);
  document.getElementById("about").textContent = about.join(" · ");
  const main = document.getElementById("main");
  const findings = node("ul", { class: "findings" }, ...report.findings.map((text) => node("li", {}, text)));
  if (!report.findings.length) findings.append(node("li", { class: "calm" }, "Nothing stands out: no throttling, no memory pressure, no lost packets, no busy disk."));
  main.append(findings);
  if (report.header.missing.length) {
    main.append(node("p", { class: "note" }, "Not to be read from the tool's container: " + report.header.missing.join(", ") + "."));
  }
  const sections = [...new Set(report.charts.map((one) => one.section))];
  if (report.processes.length && !sections.includes("Processes")) sections.splice(1, 0, "Processes");
  for (const name of sections) {
    const section = node("section", { id: name.toLowerCase() }, node("h2", {}, name));
    section.append(node("div", { class: "charts" }, ...report.charts.filter((one) => one.section === name).map(chart)));
    if (name === "Processes") section.append(processes());
    main.append(section);
    document.getElementById("sections").append(node("a", { href: "#" + name.toLowerCase() }, name));
  }
})();
