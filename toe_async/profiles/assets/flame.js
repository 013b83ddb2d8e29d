"use strict";
(() => {
// Names are hostile: everything that is shown goes through textContent, fillText or escaped SVG, never through markup.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("profile").textContent);
$("profile").remove();
const names = data.names.map((name) => name || "(no name)");
const N = data.depths.length;
const ROW = 20;
const FONT = '12px ui-monospace, "SF Mono", Menlo, Consolas, monospace';

// ---- trees: flat arrays, parents before children -------------------------------------------------------------------

const raw = { n: N, parent: new Int32Array(N), frame: Int32Array.from(data.frames) };
for (let i = 1, path = [0]; i < N; i++) {
  raw.parent[i] = path[data.depths[i] - 1];
  path[data.depths[i]] = i;
}

/** The values of one column, by node. */
function column(index) {
  const out = new Float64Array(N);
  let at = 0;
  data.at.forEach((gap, k) => { out[at += gap] = data.own[index][k]; });
  return out;
}

const sum = (values) => values.reduce((a, b) => a + b, 0);

/** Adds up what nodes cost by themselves. A frame is as wide as its share; of a difference, as its mean share of both. */
function makeTree(n, parent, frame, self, base, absolute) {
  const all = sum(self);
  const baseAll = base ? sum(base) : 0;
  const scale = base && !absolute && all > 0 && baseAll > 0 ? all / baseAll : 1;
  const tree = { n, parent, frame, self, base, scale, depth: new Int32Array(n), deep: new Int32Array(n),
    total: Float64Array.from(self), before: base && base.map((v) => v * scale), weight: new Float64Array(n) };
  tree.baseSelf = base && Float64Array.from(tree.before);
  for (let i = 0; i < n; i++) {
    tree.weight[i] = Math.abs(self[i]) + (base ? Math.abs(tree.before[i]) : 0);
    if (i) tree.depth[i] = tree.depth[parent[i]] + 1;
    tree.deep[i] = tree.depth[i];
  }
  for (let i = n - 1; i > 0; i--) {
    const p = parent[i];
    tree.total[p] += tree.total[i];
    tree.weight[p] += tree.weight[i];
    if (base) tree.before[p] += tree.before[i];
    if (tree.weight[i] && tree.deep[i] > tree.deep[p]) tree.deep[p] = tree.deep[i];
  }
  return tree;
}

let ranks = null;
/** Puts siblings in order and gives every node its place in [0, weight of the root]. Nodes without weight have none. */
function arrange(tree, order) {
  const { n, parent, weight, frame } = tree;
  const start = new Int32Array(n + 1);
  for (let i = 1; i < n; i++) if (weight[i]) start[parent[i] + 1]++;
  for (let i = 0; i < n; i++) start[i + 1] += start[i];
  const kids = new Int32Array(start[n]);
  const fill = start.slice();
  for (let i = 1; i < n; i++) if (weight[i]) kids[fill[parent[i]]++] = i;
  if (order === "alpha" && !ranks) {
    ranks = new Int32Array(names.length);
    names.map((_, i) => i).sort((a, b) => (names[a] < names[b] ? -1 : 1)).forEach((i, rank) => { ranks[i] = rank; });
  }
  const compare = order === "alpha" ? (a, b) => ranks[frame[a]] - ranks[frame[b]] : (a, b) => weight[b] - weight[a] || a - b;
  const x = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const a = start[i], b = start[i + 1];
    if (b - a > 1) kids.subarray(a, b).sort(compare);
    for (let k = a, at = x[i]; k < b; k++) { x[kids[k]] = at; at += weight[kids[k]]; }
  }
  Object.assign(tree, { start, kids, x });
}

/** Collects the nodes of a new tree: one for each pair of parent and function. */
function grower(root) {
  const parent = [0], frame = [root], known = new Map();
  return {
    parent, frame,
    child(p, f) {
      const key = p * names.length + f;
      let node = known.get(key);
      if (node === undefined) {
        node = parent.length;
        known.set(key, node);
        parent.push(p);
        frame.push(f);
      }
      return node;
    },
  };
}

/** The raw tree with only the stacks that hold every function of `focus`, without those of `hide`, recursion as one. */
function transform(self, base, { focus, hide, merge, absolute }) {
  if (!focus.length && !hide.length && !merge) return makeTree(N, raw.parent, raw.frame, self, base, absolute);
  const grow = grower(0), map = new Int32Array(N), hidden = new Set(hide);
  const wanted = new Map(focus.map((f, k) => [f, 2 ** k]));
  const every = 2 ** focus.length - 1;
  const seen = new Int32Array(N), own = [0], ownBase = [0];
  for (let i = 0; i < N; i++) {
    const f = raw.frame[i];
    if (i) {
      const p = map[raw.parent[i]];
      seen[i] = seen[raw.parent[i]] | (wanted.get(f) || 0);
      map[i] = hidden.has(f) || (merge && p && grow.frame[p] === f) ? p : grow.child(p, f);
      while (own.length < grow.parent.length) { own.push(0); ownBase.push(0); }
    }
    if (seen[i] === every) {
      own[map[i]] += self[i];
      if (base) ownBase[map[i]] += base[i];
    }
  }
  return makeTree(own.length, Int32Array.from(grow.parent), Int32Array.from(grow.frame), Float64Array.from(own),
    base && Float64Array.from(ownBase), absolute);
}

/** Every function's self and total; a function that calls itself counts once a stack. Also which nodes are outermost. */
function functions(tree) {
  const { n, start, kids, frame, self, total, baseSelf, before } = tree;
  const make = () => new Float64Array(names.length);
  const out = { self: make(), total: make(), wasSelf: make(), wasTotal: make(), outer: new Uint8Array(n), used: [] };
  const open = new Int32Array(names.length), used = new Uint8Array(names.length);
  const stack = [0];
  while (stack.length) {
    const i = stack.pop();
    if (i < 0) { open[frame[~i]]--; continue; }
    const f = frame[i];
    if (i) {
      if (!used[f]) { used[f] = 1; out.used.push(f); }
      out.self[f] += self[i];
      if (baseSelf) out.wasSelf[f] += baseSelf[i];
      if (!open[f]) {
        out.outer[i] = 1;
        out.total[f] += total[i];
        if (before) out.wasTotal[f] += before[i];
      }
      open[f]++;
      stack.push(~i);
    }
    for (let k = start[i]; k < start[i + 1]; k++) stack.push(kids[k]);
  }
  return out;
}

/** What `f` calls, merged over every place where it is called; or, `upwards`, who calls it. */
function around(tree, outer, f, upwards) {
  const grow = grower(f), own = [0], was = [0];
  const add = (node, value, before) => {
    while (own.length < grow.parent.length) { own.push(0); was.push(0); }
    own[node] += value;
    was[node] += before;
  };
  const map = new Int32Array(upwards ? 0 : tree.n).fill(-1);
  for (let i = 1; i < tree.n; i++) {
    const root = outer[i] && tree.frame[i] === f;
    if (upwards) {
      if (!root) continue;
      let node = 0;
      for (let p = tree.parent[i]; p; p = tree.parent[p]) node = grow.child(node, tree.frame[p]);
      add(node, tree.total[i], tree.before ? tree.before[i] : 0);
    } else {
      const p = map[tree.parent[i]];
      map[i] = root ? 0 : p < 0 ? -1 : grow.child(p, tree.frame[i]);
      if (map[i] >= 0) add(map[i], tree.self[i], tree.baseSelf ? tree.baseSelf[i] : 0);
    }
  }
  const out = makeTree(own.length, Int32Array.from(grow.parent), Int32Array.from(grow.frame), Float64Array.from(own),
    tree.base && Float64Array.from(was), true);
  out.scale = tree.scale;
  return out;
}

// ---- words ---------------------------------------------------------------------------------------------------------

const STEPS = {
  time: [[1, "ns"], [1e3, "µs"], [1e6, "ms"], [1e9, "s"], [6e10, "min"], [3.6e12, "h"]],
  bytes: [[1, "B"], [2 ** 10, "KiB"], [2 ** 20, "MiB"], [2 ** 30, "GiB"], [2 ** 40, "TiB"]],
};
const TIMES = { nanoseconds: 1, microseconds: 1e3, milliseconds: 1e6, seconds: 1e9 };
const grouped = new Intl.NumberFormat("en");

function amount(value, unit) {
  const steps = unit in TIMES ? STEPS.time : unit === "bytes" ? STEPS.bytes : null;
  if (!steps) return grouped.format(Math.round(value)) + (unit && unit !== "count" ? " " + unit : "");
  const size = value * (TIMES[unit] || 1);
  const step = steps.findLast(([least]) => Math.abs(size) >= least) || steps[0];
  const n = size / step[0];
  return (step === steps[0] ? grouped.format(Math.round(n)) : n.toFixed(Math.abs(n) < 10 ? 2 : Math.abs(n) < 100 ? 1 : 0)) + " " + step[1];
}

function share(part, whole) {
  const p = whole ? (100 * part) / whole : 0;
  const size = Math.abs(p);
  return (size && size < 0.01 ? (p < 0 ? "> -0.01" : "< 0.01") : p.toFixed(size < 10 ? 2 : 1)) + " %";
}

const signed = (text, value) => (value > 0 ? "+" + text : text);
const label = (tree, i) => (tree.frame[i] ? names[tree.frame[i]] : "all");

/** Of `github.com/a/b.(*T).Method` the part behind the path, for frames that are too narrow for the whole. */
function brief(name) {
  const stop = name.search(/[(<[ ]/);
  const head = stop < 0 ? name : name.slice(0, stop);
  return name.slice(head.lastIndexOf("/") + 1);
}

/** What makes two functions kin, and so of one colour: package, class path, module or file. */
function family(f) {
  const name = names[f];
  const kind = /_\[[a-z]\]$/.exec(name);
  if (kind) return kind[0];
  const file = /\(([^():]+)(?::\d+)?\)$/.exec(name);
  if (file) return file[1];
  const colons = name.indexOf("::");
  if (colons > 0) return name.slice(0, colons);
  const slash = name.lastIndexOf("/", (name.search(/[(<[ ]/) + 1 || name.length + 1) - 1);
  const dot = name.indexOf(".", slash + 1);
  if (dot > 0) return name.slice(0, dot);
  return (data.files[f] || name).replace(/[^/]*$/, "") || name;
}

// ---- colours -------------------------------------------------------------------------------------------------------

const HUES = 18;
const hue = new Uint8Array(names.length);
for (let f = 1; f < names.length; f++) {
  let hash = 2166136261;
  for (const char of family(f).slice(0, 200)) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
  hue[f] = ((hash ^ (hash >>> 15)) >>> 0) % HUES;
}
const STEP = 5; // steps of a difference to either side
function paletteOf(dark) {
  const spread = (i) => 20 + (i * 360) / HUES;
  const change = (k) => {
    const much = Math.abs(k) / STEP;
    return dark ? `oklch(${0.36 + 0.22 * much} ${0.15 * much} ${k < 0 ? 255 : 55})` : `oklch(${0.93 - 0.19 * much} ${0.15 * much} ${k < 0 ? 250 : 62})`;
  };
  return {
    ground: dark ? "#14171c" : "#ffffff", ink: dark ? "#eef1f6" : "#14181f", accent: dark ? "#ffffff" : "#0b0d11",
    all: dark ? "#3a414d" : "#d5d9e0", match: dark ? "oklch(0.80 0.16 95)" : "oklch(0.88 0.17 98)", matchInk: "#14181f", shade: dark ? "#ffffff30" : "#00000020",
    frames: Array.from({ length: HUES }, (_, i) => (dark ? `oklch(${0.42 + 0.03 * (i % 3)} 0.075 ${spread(i)})` : `oklch(${0.84 + 0.025 * (i % 3)} 0.085 ${spread(i)})`)),
    change: Array.from({ length: 2 * STEP + 1 }, (_, k) => change(k - STEP)),
  };
}
const palettes = { light: paletteOf(false), dark: paletteOf(true) };
const darkly = matchMedia("(prefers-color-scheme: dark)");
const theme = () => document.documentElement.dataset.theme || (darkly.matches ? "dark" : "light");
let printing = false;
const palette = () => palettes[printing ? "light" : theme()];

/** -STEP (gone) to STEP (new): how much of both sides together is the difference. */
function changeOf(tree, i) {
  const was = tree.before[i], is = tree.total[i];
  const both = Math.abs(was) + Math.abs(is);
  const ratio = both ? (is - was) / both : 0;
  return Math.sign(ratio) * Math.ceil(Math.abs(ratio) * STEP - 0.05);
}

function fillOf(tree, i, colours) {
  if (tree.base) return colours.change[changeOf(tree, i) + STEP];
  return tree.frame[i] ? colours.frames[hue[tree.frame[i]]] : colours.all;
}

// ---- one graph -----------------------------------------------------------------------------------------------------

class Chart {
  constructor(host, title, on) {
    this.on = on;
    this.tree = null;
    this.zoom = 0;
    this.selected = this.hovered = -1;
    this.up = false;
    this.inverted = false;
    this.width = this.height = 0;
    this.scroll = host.appendChild(document.createElement("div"));
    this.scroll.className = "scroll";
    this.scroll.tabIndex = -1;
    this.space = this.scroll.appendChild(document.createElement("div"));
    this.space.className = "space";
    this.canvas = this.space.appendChild(document.createElement("canvas"));
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", title + ". Arrow keys walk from frame to frame, Enter zooms in, minus zooms out.");
    this.pen = this.canvas.getContext("2d");
    this.pen.font = FONT;
    this.charWidth = this.pen.measureText("M").width;
    this.scroll.addEventListener("scroll", () => this.draw());
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("click", (event) => {
      const node = this.hit(event.offsetX, event.offsetY);
      if (node < 0) return;
      this.select(node, false);
      this.on.zoom(this, node);
    });
    this.canvas.addEventListener("focus", () => this.on.active(this));
    new ResizeObserver(() => this.size()).observe(this.scroll);
  }

  show(tree, { up, zoom = 0, selected = -1 }) {
    Object.assign(this, { tree, up, zoom, selected, hovered: -1 });
    this.size();
    this.scroll.scrollTop = up ? this.space.offsetHeight : 0;
    this.draw();
  }

  get rows() { return this.tree.deep[this.zoom] + 1; }

  size() {
    if (!this.tree) return;
    const below = this.space.offsetHeight - this.scroll.scrollTop - this.height;
    this.width = this.scroll.clientWidth;
    this.height = printing ? Math.min(this.rows * ROW, 8000) : this.scroll.clientHeight;
    if (!this.width || !this.height) return;
    const fine = printing ? 2 : devicePixelRatio || 1;
    const [width, height] = [Math.round(this.width * fine), Math.round(this.height * fine)];
    this.space.style.height = this.rows * ROW + "px";
    if (this.up) this.scroll.scrollTop = this.space.offsetHeight - this.height - below; // the root stays where it was
    if (this.canvas.width === width && this.canvas.height === height) return this.draw();
    this.canvas.style.height = this.height + "px";
    Object.assign(this.canvas, { width, height });
    this.pen.setTransform(fine, 0, 0, fine, 0, 0);
    this.paint(); // at once: a canvas of another size is empty
  }

  /** Paints with the next frame, once for all that asks. */
  draw() {
    this.asked ||= requestAnimationFrame(() => this.paint());
  }

  /** Top edge of a row on the canvas. */
  y(row) {
    const scrolled = printing ? 0 : this.scroll.scrollTop;
    return (this.up ? Math.max(this.rows * ROW, this.height) - (row + 1) * ROW : row * ROW) - scrolled;
  }

  /** Calls `each(node, x, width, row)` for every frame that is at least `least` wide, callers first. */
  walk(width, least, each) {
    const { tree, zoom } = this;
    const whole = tree.weight[zoom];
    if (!whole) return;
    for (let i = zoom; i; ) each((i = tree.parent[i]), 0, width, tree.depth[i]);
    const factor = width / whole, left = tree.x[zoom];
    const stack = [zoom];
    while (stack.length) {
      const i = stack.pop();
      if (each(i, (tree.x[i] - left) * factor, tree.weight[i] * factor, tree.depth[i]) === false) continue;
      for (let k = tree.start[i]; k < tree.start[i + 1]; k++) {
        if (tree.weight[tree.kids[k]] * factor >= least) stack.push(tree.kids[k]);
      }
    }
  }

  paint() {
    const { pen, tree } = this;
    cancelAnimationFrame(this.asked);
    this.asked = 0;
    if (!tree || !this.width || !this.height) return;
    const colours = palette();
    pen.fillStyle = colours.ground;
    pen.fillRect(0, 0, this.width, this.height);
    pen.font = FONT;
    pen.textBaseline = "middle";
    pen.direction = "ltr";
    if (!tree.weight[0]) {
      pen.fillStyle = colours.ink;
      pen.fillText("Nothing was measured here.", 14, 24);
      return;
    }
    const matches = this.on.matches();
    const boxes = [new Map(), new Map()]; // strong and faint; by colour, because to change the colour costs more than to fill
    const texts = [], rims = [];
    this.walk(this.width, 0.5, (i, x, w, row) => {
      const y = this.y(row);
      if (y >= this.height) return this.up;
      if (y <= -ROW) return !this.up;
      const found = matches && matches[tree.frame[i]];
      const faint = matches ? !found : tree.depth[i] < tree.depth[this.zoom];
      const marked = found && !tree.base;
      const fill = marked ? colours.match : fillOf(tree, i, colours);
      const group = boxes[+faint];
      if (!group.has(fill)) group.set(fill, []);
      group.get(fill).push(x, y, w > 3 ? w - 1 : w);
      if (found && tree.base && w > 3) rims.push(x, y, w);
      const fit = Math.floor((w - 8) / this.charWidth);
      if (fit >= 2) texts.push([this.caption(i, fit), x + 4, y + ROW / 2, w - 6, marked ? colours.matchInk : colours.ink]);
      return true;
    });
    boxes.forEach((group, faint) => {
      pen.globalAlpha = faint ? 0.4 : 1;
      for (const [fill, list] of group) {
        pen.fillStyle = fill;
        for (let k = 0; k < list.length; k += 3) pen.fillRect(list[k], list[k + 1], list[k + 2], ROW - 1);
      }
    });
    pen.globalAlpha = 1;
    for (let k = 0; k < rims.length; k += 3) this.outline(rims[k], rims[k + 1], rims[k + 2], colours.ink, 1);
    const under = this.hovered >= 0 && this.place(this.hovered);
    if (under) {
      pen.fillStyle = colours.shade;
      pen.fillRect(under.x, under.y, under.w > 3 ? under.w - 1 : under.w, ROW - 1);
    }
    for (const [text, x, y, w, ink] of texts) {
      pen.fillStyle = ink;
      pen.fillText(text, x, y, w);
    }
    if (this.selected >= 0) {
      const at = this.place(this.selected);
      if (at) this.outline(at.x, at.y, Math.max(at.w, 4), colours.accent, 2);
    }
  }

  caption(i, fit) {
    let text = label(this.tree, i);
    if (this.tree.base && fit > 18 && this.tree.before[i] !== this.tree.total[i]) text += "  " + this.change(i);
    if (text.length > fit) text = brief(text);
    return text.length > fit ? text.slice(0, fit - 1) + "…" : text;
  }

  outline(x, y, w, colour, width) {
    this.pen.strokeStyle = colour;
    this.pen.lineWidth = width;
    this.pen.strokeRect(x + width / 2, y + width / 2, Math.max(w - 1 - width, 1), ROW - 1 - width);
  }

  /** Where a node is on the canvas; null when the zoom leaves it out. */
  place(i) {
    const { tree, zoom } = this;
    const whole = tree.weight[zoom];
    const y = this.y(tree.depth[i]);
    for (let p = zoom; ; p = tree.parent[p]) {
      if (p === i && i !== zoom) return { x: 0, y, w: this.width };
      if (!p) break;
    }
    const factor = this.width / whole;
    const x = (tree.x[i] - tree.x[zoom]) * factor;
    const inside = tree.depth[i] >= tree.depth[zoom] && x > -1e-6 && x < this.width && this.under(i);
    return inside ? { x, y, w: tree.weight[i] * factor } : null;
  }

  under(i) {
    while (this.tree.depth[i] > this.tree.depth[this.zoom]) i = this.tree.parent[i];
    return i === this.zoom;
  }

  hit(x, y) {
    const { tree, zoom } = this;
    if (!tree || !tree.weight[0]) return -1;
    const row = this.up ? Math.floor((this.y(0) + ROW - y) / ROW) : Math.floor((y - this.y(0)) / ROW);
    if (row < 0) return -1;
    let node = zoom;
    while (tree.depth[node] > row) node = tree.parent[node];
    const at = tree.x[zoom] + (x / this.width) * tree.weight[zoom];
    while (tree.depth[node] < row) {
      let next = -1;
      for (let k = tree.start[node]; k < tree.start[node + 1] && next < 0; k++) {
        const kid = tree.kids[k];
        if (at >= tree.x[kid] && at < tree.x[kid] + tree.weight[kid]) next = kid;
      }
      if (next < 0) return -1;
      node = next;
    }
    return node;
  }

  point(event) {
    const node = event ? this.hit(event.offsetX, event.offsetY) : -1;
    if (node !== this.hovered) {
      this.hovered = node;
      this.draw();
    }
    this.on.hover(this, node, event);
  }

  select(node, reveal = true) {
    this.selected = node;
    if (reveal && node >= 0) {
      const y = this.y(this.tree.depth[node]);
      if (y < 0) this.scroll.scrollTop += y;
      else if (y + ROW > this.height) this.scroll.scrollTop += y + ROW - this.height;
    }
    this.draw();
    this.on.select(this, node);
  }

  /** One step with an arrow key: to the widest child, the parent, or the next frame of the same parent. */
  step(key) {
    const { tree } = this;
    const i = this.selected;
    if (i < 0) return this.select(this.zoom);
    const inward = this.up ? "ArrowUp" : "ArrowDown", outward = this.up ? "ArrowDown" : "ArrowUp";
    let next = i;
    if (key === inward) {
      for (let k = tree.start[i]; k < tree.start[i + 1]; k++) if (next === i || tree.weight[tree.kids[k]] > tree.weight[next]) next = tree.kids[k];
    } else if (key === outward) {
      next = tree.parent[i];
    } else {
      const p = tree.parent[i];
      const k = i ? tree.kids.indexOf(i, tree.start[p]) + (key === "ArrowRight" ? 1 : -1) : -1;
      if (k >= tree.start[p] && k < tree.start[p + 1]) next = tree.kids[k];
    }
    return this.select(next);
  }

  zoomTo(node) {
    this.zoom = node;
    this.size();
    this.scroll.scrollTop = this.up ? this.space.offsetHeight : Math.max(0, Math.min(this.scroll.scrollTop, (this.tree.depth[node] - 1) * ROW));
    this.draw();
  }

  change(i) {
    const { tree } = this;
    const was = tree.before[i], is = tree.total[i];
    return is === was ? "none" : !was ? "new" : !is ? "gone" : signed(share(is - was, Math.abs(was)), is - was);
  }

  /** Self, total and shares of a node, as sentences without its name. */
  facts(i) {
    const { tree } = this;
    const unit = data.types[state.type][1], all = current.total[0];
    const out = [];
    if (tree.base) {
      out.push(`Total ${amount(tree.total[i], unit)}, ${share(tree.total[i], all)}. Before ${amount(tree.before[i] / tree.scale, unit)}, ${share(tree.before[i], current.before[0])}. Change ${this.change(i)}.`);
      if (!this.inverted) out.push(`Self ${amount(tree.self[i], unit)}; before ${amount(tree.baseSelf[i] / tree.scale, unit)}.`);
      return out;
    }
    if (!this.inverted) out.push(`Self ${amount(tree.self[i], unit)}, ${share(tree.self[i], all)}.`);
    out.push(`Total ${amount(tree.total[i], unit)}, ${share(tree.total[i], all)}.`);
    const parent = tree.parent[i];
    if (i && parent) out.push(this.inverted ? "" : `${share(tree.total[i], tree.total[parent])} of its caller.`);
    return out.filter(Boolean);
  }
}

// ---- the view: everything that a link holds ---------------------------------------------------------------------------

const VIEWS = ["flame", "sandwich", "top"];
const FRESH = { view: "flame", type: data.shown, order: "heavy", up: false, merge: false, absolute: false, query: "", zoom: 0, func: 0, focus: [], hide: [], sort: "self", asc: false };
let state = { ...FRESH };
let current = null;   // the tree that is shown
let sums = null;      // its functions
let matches = null;   // by function: is it found
let pointed = null;   // the chart whose selection the footer shows
const stale = { tree: "", order: "", sandwich: "", table: "", query: null };

function writeLink() {
  const out = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    const text = Array.isArray(value) ? value.join(".") : typeof value === "boolean" ? String(+value) : String(value);
    const usual = Array.isArray(FRESH[key]) ? "" : typeof FRESH[key] === "boolean" ? String(+FRESH[key]) : String(FRESH[key]);
    if (text !== usual) out.set(key, text);
  }
  return "#" + out;
}

function readLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  const whole = (text, end) => (/^\d{1,9}$/.test(text) && +text < end ? +text : 0);
  const next = { ...FRESH, focus: [], hide: [] };
  for (const [key, text] of given) {
    if (key === "view" && VIEWS.includes(text)) next.view = text;
    else if (key === "type") next.type = whole(text, data.types.length);
    else if (key === "order" && text === "alpha") next.order = text;
    else if (key === "sort" && COLUMNS.some((one) => one.key === text)) next.sort = text;
    else if (["up", "merge", "absolute", "asc"].includes(key)) next[key] = text === "1";
    else if (key === "query") next.query = text;
    else if (key === "zoom") next.zoom = whole(text, 1e9);
    else if (key === "func") next.func = whole(text, names.length);
    else if (key === "focus" || key === "hide") next[key] = text.split(".").map((one) => whole(one, names.length)).filter(Boolean).slice(0, 30);
  }
  return next;
}

/** The one way to change the view. `step`: the browser's Back undoes it. */
function go(patch, step = true) {
  Object.assign(state, patch);
  render(!("zoom" in patch));
  try {
    history[step ? "pushState" : "replaceState"](null, "", writeLink());
  } catch { /* a place without history, or more steps a second than it allows: the view works all the same */ }
}

/** Notes in the browser's performance timeline how long `work` takes, with the painting that it leads to. */
const timed = (what, work) => {
  const start = performance.now();
  work();
  charts.flame.paint();
  performance.measure("flame:" + what, { start, end: performance.now() });
};

const pathOf = (tree, i) => {
  const out = [];
  for (; i; i = tree.parent[i]) out.unshift(tree.frame[i]);
  return out;
};

/** The node that a path of functions leads to in another tree; functions that are not there are left out. */
function locate(tree, path) {
  let node = 0;
  for (const f of path) {
    const next = tree.kids.subarray(tree.start[node], tree.start[node + 1]).find((kid) => tree.frame[kid] === f);
    if (next !== undefined) node = next;
  }
  return node;
}

const columns = new Map();
const values = (index) => columns.get(index) || columns.set(index, column(index)).get(index);

function render(keepPlace) {
  const { view, type, order, focus, hide, merge, absolute } = state;
  const treeKey = JSON.stringify([type, focus, hide, merge, absolute]);
  const before = current;
  const was = before && { zoom: pathOf(before, charts.flame.zoom), selected: charts.flame.selected > 0 ? pathOf(before, charts.flame.selected) : null };
  if (stale.tree !== treeKey) {
    current = transform(values(type), data.diff ? values(data.types.length + type) : null, state);
    stale.order = "";
    stale.tree = treeKey;
  }
  if (stale.order !== order) arrange(current, order);
  const changed = stale.order !== order || current !== before;
  stale.order = order;
  if (current !== before) sums = functions(current);
  if (current !== before && before && keepPlace) state.zoom = locate(current, was.zoom);
  if (state.zoom >= current.n || !current.weight[state.zoom]) state.zoom = 0;
  search();
  $("views").dataset.view = view;
  if (changed || charts.flame.up !== state.up) {
    const selected = was && was.selected ? locate(current, was.selected) : 0;
    charts.flame.show(current, { up: state.up, zoom: state.zoom, selected: selected || -1 });
    if (pointed === charts.flame) describe(charts.flame, charts.flame.selected);
  } else if (charts.flame.zoom !== state.zoom) timed("zoom", () => charts.flame.zoomTo(state.zoom));
  if (view === "sandwich") sandwich();
  if (view !== "flame") table();
  controls();
  for (const chart of Object.values(charts)) chart.draw();
}

function search() {
  const key = state.query + "\n" + stale.tree;
  if (stale.query === key) return;
  stale.query = key;
  timed("search", () => {
    const { query } = state;
    let pattern = null;
    matches = null;
    if (query) {
      try {
        pattern = new RegExp(query, /\p{Lu}/u.test(query.replace(/\\./g, "")) ? "" : "i");
      } catch { /* told below */ }
    }
    $("find").setAttribute("aria-invalid", String(Boolean(query && !pattern)));
    if (pattern) {
      matches = new Uint8Array(names.length);
      for (const f of sums.used) matches[f] = +pattern.test(names[f]);
    }
    $("found").textContent = !query ? "" : !pattern ? "not a regular expression" : matchedShare();
    for (const chart of Object.values(charts)) chart.draw();
  });
}

function matchedShare() {
  const { n, parent, frame, total, weight } = current;
  const inside = new Uint8Array(n);
  let part = 0, frames = 0;
  for (let i = 1; i < n; i++) {
    const found = matches[frame[i]];
    inside[i] = found | inside[parent[i]];
    if (found && weight[i]) frames++;
    if (found && !inside[parent[i]]) part += total[i];
  }
  return frames ? `${share(part, total[0])} in ${grouped.format(frames)} frames` : "no match";
}

/** The widest of the outermost matches, then the next: selected, and shown when the zoom leaves it out. */
function nextMatch() {
  if (!matches) return;
  const chart = charts.flame, found = [];
  for (let i = 1; i < current.n; i++) if (matches[current.frame[i]] && current.weight[i] && sums.outer[i]) found.push(i);
  if (!found.length) return;
  found.sort((a, b) => current.weight[b] - current.weight[a] || a - b);
  const node = found[(found.indexOf(chart.selected) + 1) % found.length];
  if (state.view !== "flame" || !chart.place(node)) go({ view: "flame", zoom: 0 });
  chart.select(node);
}

function sandwich() {
  if (!state.func || !sums.total[state.func] && !sums.wasTotal[state.func]) {
    const least = (f) => Math.abs(sums.self[f]) + Math.abs(sums.wasSelf[f]);
    state.func = sums.used.reduce((best, f) => (least(f) > least(best) ? f : best), sums.used[0] || 0);
  }
  const key = stale.tree + state.func + state.order;
  if (stale.sandwich === key) return;
  stale.sandwich = key;
  for (const [chart, upwards] of [[charts.callers, true], [charts.callees, false]]) {
    const tree = around(current, sums.outer, state.func, upwards);
    arrange(tree, state.order);
    chart.inverted = upwards;
    chart.show(tree, { up: upwards });
  }
  for (const one of document.querySelectorAll("#sandwich .function")) one.textContent = names[state.func];
}

// ---- the table -----------------------------------------------------------------------------------------------------

const COLUMNS = [
  { key: "name", title: "Function", of: (f) => names[f] },
  { key: "self", title: "Self", of: (f) => sums.self[f] },
  ...(data.diff ? [{ key: "dself", title: "Change of self", of: (f) => sums.self[f] - sums.wasSelf[f], change: true }] : []),
  { key: "total", title: "Total", of: (f) => sums.total[f] },
  ...(data.diff ? [{ key: "dtotal", title: "Change of total", of: (f) => sums.total[f] - sums.wasTotal[f], change: true }] : []),
];
let shownRows = 200;

function make(tag, text, parent, className) {
  const out = document.createElement(tag);
  if (text !== undefined) out.textContent = text;
  if (className) out.className = className;
  return parent ? parent.appendChild(out) : out;
}

function table() {
  const key = [stale.tree, state.sort, state.asc, state.query, shownRows, state.view, state.func].join("\n");
  if (stale.table === key) return;
  stale.table = key;
  const by = COLUMNS.find((one) => one.key === state.sort), sign = state.asc ? 1 : -1;
  const size = (f) => (by.change ? Math.abs(by.of(f)) : by.of(f));
  const rank = by.key === "name" ? (a, b) => (names[a] < names[b] ? sign : -sign) * -1 : (a, b) => sign * (size(a) - size(b)) || Math.abs(sums.total[b]) - Math.abs(sums.total[a]) || a - b;
  const rows = sums.used.filter((f) => !matches || matches[f]).sort(rank);
  const unit = data.types[state.type][1], all = current.total[0];
  const body = document.querySelector("#table tbody");
  body.replaceChildren();
  for (const f of rows.slice(0, shownRows)) {
    const row = make("tr", undefined, body);
    if (state.view === "sandwich") row.setAttribute("aria-selected", String(f === state.func));
    make("button", names[f], make("td", undefined, row)).dataset.function = f;
    for (const one of COLUMNS.slice(1)) {
      const value = one.of(f);
      const cell = make("td", undefined, row, one.change ? "" : "share");
      const text = amount(value, unit);
      make("span", one.change ? signed(text, value) : text, cell, !one.change || !value ? "" : value > 0 ? "more" : "less");
      make("small", one.change ? signed(share(value, all), value) : share(value, all), cell);
      if (!one.change) cell.style.setProperty("--part", Math.max(0, Math.min(100, (100 * value) / (all || 1))).toFixed(1) + "%");
    }
  }
  const left = rows.length - shownRows;
  $("rest").hidden = left <= 0;
  $("rest").textContent = `Show more (${grouped.format(Math.max(left, 0))} left)`;
  for (const head of document.querySelectorAll("#table th")) {
    const mine = head.dataset.key === state.sort;
    if (mine) head.setAttribute("aria-sort", state.asc ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
    head.querySelector("span").textContent = mine ? (state.asc ? " ▲" : " ▼") : "";
  }
}

// ---- controls ------------------------------------------------------------------------------------------------------

function controls() {
  for (const button of document.querySelectorAll("[data-view]")) if (button.tagName === "BUTTON") button.setAttribute("aria-current", String(button.dataset.view === state.view));
  $("type").value = state.type;
  $("order").value = state.order;
  $("absolute").value = String(+state.absolute);
  $("up").setAttribute("aria-pressed", String(state.up));
  $("merge").setAttribute("aria-pressed", String(state.merge));
  $("up").disabled = state.view !== "flame";
  document.querySelector("footer").hidden = state.view === "top";
  if ($("find").value !== state.query) $("find").value = state.query;
  crumbs();
  const chips = $("chips");
  chips.replaceChildren();
  for (const [list, word] of [["focus", "Only"], ["hide", "Without"]]) {
    for (const f of state[list]) {
      const chip = make("button", `${word} ${brief(names[f]).slice(0, 80)} ✕`, chips);
      chip.setAttribute("aria-label", `${word} ${names[f].slice(0, 200)}: remove`);
      chip.addEventListener("click", () => go({ [list]: state[list].filter((one) => one !== f) }));
    }
  }
  const unit = data.types[state.type][1];
  const facts = [`${amount(current.total[0], unit)} ${data.types[state.type][0]}`.slice(0, 80)];
  if (data.diff) facts.push(`before ${amount(current.before[0] / current.scale, unit)}`);
  facts.push(`${grouped.format(current.kids.length)} frames`);
  if (data.dropped) facts.push(`${grouped.format(data.dropped)} smaller ones drawn together`);
  $("facts").textContent = facts.join(" · ");
}

function crumbs() {
  const path = [];
  for (let i = state.zoom; ; i = current.parent[i]) {
    path.unshift(i);
    if (!i) break;
  }
  const short = path.length > 6 ? [path[0], -1, ...path.slice(-4)] : path;
  $("crumbs").replaceChildren();
  $("crumbs").hidden = state.view !== "flame";
  short.forEach((node, at) => {
    if (at) make("span", "›", $("crumbs"));
    if (node < 0) return void make("span", "…", $("crumbs"));
    const button = make("button", brief(label(current, node)).slice(0, 120), $("crumbs"));
    if (node === state.zoom) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => go({ view: "flame", zoom: node }));
  });
}

/** The chosen frame, in the footer and in words for those who do not see the canvas. */
function describe(chart, node) {
  const box = $("frame");
  for (const tool of document.querySelectorAll("#tools button")) tool.disabled = !(node >= 0 && (chart.tree.frame[node] || tool.dataset.do === "zoom"));
  box.replaceChildren();
  if (node < 0) return void make("p", "Point at a frame, or walk with the arrow keys.", box);
  const { tree } = chart;
  make("bdi", label(tree, node), make("p", undefined, box), "name");
  const file = data.files[tree.frame[node]];
  make("p", [...chart.facts(node), file].filter(Boolean).join(" "), box);
}

function tell(chart, node) {
  if (node < 0) return void ($("live").textContent = "");
  const { tree } = chart;
  const p = tree.parent[node];
  const among = node ? `, ${tree.kids.subarray(tree.start[p], tree.start[p + 1]).indexOf(node) + 1} of ${tree.start[p + 1] - tree.start[p]}` : "";
  $("live").textContent = `${label(tree, node).slice(0, 400)}. Level ${tree.depth[node]}${among}. ${chart.facts(node).join(" ")}`;
}

function tip(chart, node, event) {
  const box = $("tip");
  box.hidden = node < 0 || event.pointerType === "touch";
  if (box.hidden) return;
  if (box.node !== node || box.chart !== chart) {
    Object.assign(box, { node, chart });
    box.replaceChildren();
    make("bdi", label(chart.tree, node).slice(0, 2000), make("p", undefined, box, "name"));
    for (const line of [...chart.facts(node), data.files[chart.tree.frame[node]]]) if (line) make("p", line, box);
  }
  const { clientX: x, clientY: y } = event;
  const left = x + 16 + box.offsetWidth > innerWidth ? Math.max(4, x - 12 - box.offsetWidth) : x + 16;
  const top = y + 18 + box.offsetHeight > innerHeight ? Math.max(4, y - 12 - box.offsetHeight) : y + 18;
  box.style.transform = `translate(${left}px, ${top}px)`;
}

const on = {
  matches: () => matches,
  active: (chart) => { pointed = chart; describe(chart, chart.selected); },
  hover: (chart, node, event) => tip(chart, node, event),
  select: (chart, node) => { pointed = chart; describe(chart, node); tell(chart, node); },
  zoom: (chart, node) => (chart === charts.flame ? node !== state.zoom && go({ zoom: node }) : chart.zoomTo(node)),
};
const charts = {
  flame: new Chart($("flame"), "Flame graph", on),
  callers: new Chart($("callers"), "Callers", on),
  callees: new Chart($("callees"), "Callees", on),
};

/** Adds a function to those focused on or hidden; at most 30 of each, which is what a link can hold. */
function narrow(list, f) {
  if (f && state[list].length < 30 && !state[list].includes(f)) go({ [list]: [...state[list], f] });
}

async function copy(text, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // without an origin, or over plain HTTP, there is no clipboard interface
    const area = make("textarea", undefined, document.body);
    area.value = text;
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const words = button.textContent;
  button.textContent = done ? "Copied" : "Not allowed here";
  setTimeout(() => { button.textContent = words; }, 1200);
}

const TOOLS = {
  zoom: (chart, node) => on.zoom(chart, node),
  sandwich: (chart, node) => go({ view: "sandwich", func: chart.tree.frame[node] }),
  focus: (chart, node) => narrow("focus", chart.tree.frame[node]),
  hide: (chart, node) => narrow("hide", chart.tree.frame[node]),
  copy: (chart, node, button) => {
    const path = [...pathOf(chart.tree, node), ...(chart === charts.flame ? [] : [state.func])].map((f) => names[f]);
    if (chart === charts.callees) path.unshift(path.pop());
    copy((chart.inverted ? path : path.reverse()).join("\n") + "\n", button);
  },
};

// ---- downloads, made in the page -----------------------------------------------------------------------------------

const plain = (f) => names[f].replace(/;/g, ":").replace(/[\r\n]/g, " ");

function foldedParts() {
  const { n, self, base } = current;
  const out = [];
  for (let i = 1; i < n; i++) {
    if (self[i] || (base && base[i])) out.push(pathOf(current, i).map(plain).join(";") + (base ? ` ${base[i]} ${self[i]}\n` : ` ${self[i]}\n`));
  }
  return out;
}

function speedscope() {
  const [type, unit] = data.types[state.type];
  const samples = [], weights = [];
  for (let i = 1; i < current.n; i++) {
    if (current.self[i] > 0) { samples.push(pathOf(current, i).map((f) => f - 1)); weights.push(current.self[i]); }
  }
  const known = ["nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"];
  return [JSON.stringify({
    $schema: "https://www.speedscope.app/file-format-schema.json",
    shared: { frames: names.slice(1).map((name, k) => (data.files[k + 1] ? { name, file: data.files[k + 1] } : { name })) },
    profiles: [{ type: "sampled", name: `${data.title} ${type}`, unit: known.includes(unit) ? unit : "none", startValue: 0, endValue: sum(weights), samples, weights }],
    name: data.title, exporter: "toe-async",
  })];
}

function svg() {
  const width = 1200, chart = state.view === "sandwich" && pointed && pointed !== charts.flame ? pointed : charts.flame;
  const height = chart.rows * ROW + 40, colours = palette();
  const safe = (text) => Array.from(text, (char) => {
    const code = char.codePointAt(0);
    if (code < 0x20 || (code >= 0xd800 && code < 0xe000) || code === 0xfffe || code === 0xffff) return "\ufffd"; // no XML
    return `<>&"'`.includes(char) ? `&#${code};` : char;
  }).join("");
  const out = [`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="monospace" font-size="12"><rect width="100%" height="100%" fill="${colours.ground}"/><text x="6" y="22" font-size="14" fill="${colours.ink}">${safe(data.title)}</text>`];
  chart.walk(width, 0.5, (i, x, w, row) => {
    const y = chart.up ? height - 6 - (row + 1) * ROW : 34 + row * ROW;
    const fit = Math.floor((w - 8) / 7.3);
    const text = fit >= 2 ? `<text x="${(x + 4).toFixed(1)}" y="${y + 14}" fill="${colours.ink}">${safe(chart.caption(i, fit))}</text>` : "";
    out.push(`<g><title>${safe(label(chart.tree, i))} ${safe(chart.facts(i).join(" "))}</title><rect x="${x.toFixed(2)}" y="${y}" width="${Math.max(0.3, w - (w > 3 ? 1 : 0)).toFixed(2)}" height="${ROW - 1}" fill="${fillOf(chart.tree, i, colours)}"/>${text}</g>`);
  });
  return [...out, "</svg>\n"];
}

const SAVES = { folded: [foldedParts, "text/plain", "folded"], speedscope: [speedscope, "application/json", "speedscope.json"], svg: [svg, "image/svg+xml", "svg"] };

function save(kind) {
  const [parts, type, ending] = SAVES[kind];
  const link = make("a", undefined, document.body);
  link.href = URL.createObjectURL(new Blob(parts(), { type }));
  link.download = (data.title.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[-.]+|[-.]+$/g, "").slice(0, 100) || "profile") + "." + ending;
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- events --------------------------------------------------------------------------------------------------------

function setTheme(wanted) {
  if (wanted) document.documentElement.dataset.theme = wanted;
  legend();
  for (const chart of Object.values(charts)) chart.draw();
}

function legend() {
  const scale = document.querySelector("#legend i");
  scale.replaceChildren();
  for (const colour of palette().change) make("b", undefined, scale).style.background = colour;
}

function escape() {
  if ($("save").open) $("save").open = false;
  else if (state.query) go({ query: "" }, false);
  else if (pointed && pointed.selected >= 0) pointed.select(-1);
  else if (state.zoom) go({ zoom: 0 });
}

function keys(event) {
  if ($("help").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = document.activeElement;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(at.tagName);
  const inChart = at.tagName === "CANVAS" || at === document.body || at.classList.contains("scroll");
  const chart = at.tagName === "CANVAS" ? Object.values(charts).find((one) => one.canvas === at) : state.view === "flame" ? charts.flame : pointed;
  const key = event.key;
  if (key === "Escape") {
    escape();
    if (typing) at.blur();
  } else if (typing) return;
  else if (key === "/") { $("find").focus(); $("find").select(); }
  else if (key === "?") $("help").showModal();
  else if (key === "0") { if (chart && chart !== charts.flame) chart.zoomTo(0); else go({ zoom: 0 }); }
  else if (!chart || !chart.tree) return;
  else if (key === "+" || key === "=") { if (chart.selected >= 0) on.zoom(chart, chart.selected); }
  else if (key === "-") { if (chart.zoom) on.zoom(chart, chart.tree.parent[chart.zoom]); }
  else if (!inChart) return;
  else if (key === "Enter") { if (chart.selected >= 0) on.zoom(chart, chart.selected); }
  else if (key.startsWith("Arrow")) chart.step(key);
  else return;
  event.preventDefault();
}

function start() {
  for (const part of document.querySelectorAll("[data-script]")) part.hidden = false;
  data.types.forEach(([type, unit], i) => { make("option", data.types.filter((one) => one[0] === type).length > 1 ? `${type} (${unit})` : type, $("type")).value = i; });
  $("type-label").hidden = data.types.length < 2;
  $("compare").hidden = $("legend").hidden = !data.diff;
  const head = document.querySelector("#table thead tr");
  for (const one of COLUMNS) {
    const cell = make("th", undefined, head);
    cell.dataset.key = one.key;
    cell.scope = "col";
    const button = make("button", one.title, cell);
    make("span", "", button).setAttribute("aria-hidden", "true");
    button.addEventListener("click", () => go({ sort: one.key, asc: state.sort === one.key ? !state.asc : one.key === "name" }, false));
  }
  for (const button of document.querySelectorAll(".tabs button")) button.addEventListener("click", () => go({ view: button.dataset.view }));
  for (const button of document.querySelectorAll("#save button")) button.addEventListener("click", () => { $("save").open = false; save(button.dataset.save); });
  for (const button of document.querySelectorAll("#tools button")) button.addEventListener("click", () => { if (pointed && pointed.selected >= 0) TOOLS[button.dataset.do](pointed, pointed.selected, button); });
  $("type").addEventListener("change", () => go({ type: +$("type").value }));
  $("order").addEventListener("change", () => go({ order: $("order").value }, false));
  $("absolute").addEventListener("change", () => go({ absolute: $("absolute").value === "1" }, false));
  $("up").addEventListener("click", () => go({ up: !state.up }, false));
  $("merge").addEventListener("click", () => go({ merge: !state.merge }, false));
  $("find").addEventListener("input", () => go({ query: $("find").value }, false));
  $("find").addEventListener("keydown", (event) => { if (event.key === "Enter") nextMatch(); });
  $("link").addEventListener("click", () => copy(location.href, $("link")));
  $("help-open").addEventListener("click", () => $("help").showModal());
  $("help-close").addEventListener("click", () => $("help").close());
  $("rest").addEventListener("click", () => { shownRows += 500; table(); });
  document.querySelector("#table tbody").addEventListener("click", (event) => {
    const f = event.target.closest("tr")?.querySelector("button").dataset.function;
    if (f) go({ view: "sandwich", func: +f });
  });
  $("theme").addEventListener("click", () => {
    setTheme(theme() === "dark" ? "light" : "dark");
    try {
      localStorage.setItem("toe-theme", theme());
    } catch { /* a page without an origin keeps nothing */ }
  });
  darkly.addEventListener("change", () => setTheme());
  document.addEventListener("keydown", keys);
  document.addEventListener("click", (event) => { if (!$("save").contains(event.target)) $("save").open = false; });
  for (const [event, now] of [["beforeprint", true], ["afterprint", false]]) addEventListener(event, () => {
    printing = now;
    for (const chart of Object.values(charts)) {
      chart.size();
      chart.paint();
    }
  });
  addEventListener("popstate", () => { state = readLink(); render(false); });
  let kept = null;
  try {
    kept = localStorage.getItem("toe-theme");
  } catch { /* as above */ }
  state = readLink();
  pointed = charts.flame;
  render(false);
  describe(charts.flame, -1);
  setTheme(kept === "dark" || kept === "light" ? kept : "");
  requestAnimationFrame(() => setTimeout(() => performance.mark("flame:painted")));
}
start();
})();
