// The reader of a page made by `export_page`: classic script, no network, no innerHTML (a dataset's text is data).
"use strict";
var unweave = (function () {
  const CHUNK = 64, ROW = 28, KEPT_CHUNKS = 32, PICTURE = 128;
  const COLUMNS = [["feature", "feature"], ["label", "label"], ["density", "density"], ["max", "max"], ["mean", "mean"], ["label_score", "score"]];
  const NEAR = { decoder: ["Decoder", "cosine"], encoder: ["Encoder", "cosine"], cofire: ["Co-firing", "Jaccard"] };
  const TABS = [["top", "Top"], ["quantile", "Quantiles"], ["random", "Random"]];
  const $ = (id) => document.getElementById(id);
  const bundles = new Map(), parts = new Map(), loading = new Map();
  let current = null, feature = -1, view = new Uint32Array(0), sort = { by: "feature", down: false }, tab = "top", drawn = "", maps = true;

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  function svg(tag, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function number(value) {
    if (value === null || Number.isNaN(value)) return "–";
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size >= 1e5 || size < 0.01) return value.toExponential(1).replace("e+", "e");
    return size >= 100 ? value.toFixed(0) : value.toPrecision(3);
  }
  const whole = (value) => value.toLocaleString("en");
  const many = (n, one) => whole(n) + " " + one + (n === 1 ? "" : /ch$/.test(one) ? "es" : "s");

  // ---- data: scripts of this folder, each calling receive() ----
  const file = (bundle, part) => "data/" + (bundle === null ? "page" : bundle + "/" + (part === "table" ? part : "chunk-" + String(part).padStart(4, "0"))) + ".js";

  function need(bundle, part) {
    const path = file(bundle, part);
    if (parts.has(path)) return Promise.resolve(parts.get(path));
    if (loading.has(path)) return loading.get(path);
    let script;
    const promise = new Promise((resolve, reject) => {
      const fail = (why) => reject(new Error(path + " " + why + ". The page needs all files of its folder: copy the whole folder, or export it again."));
      script = el("script", { src: path, onerror: () => fail("could not be loaded"), onload: () => (parts.has(path) ? resolve(parts.get(path)) : fail("is damaged")) });
      document.head.append(script);
    }).finally(() => { loading.delete(path); script.remove(); });
    loading.set(path, promise);
    return promise;
  }

  function receive(bundle, part, payload) {
    parts.set(file(bundle, part), payload);
    const chunks = [...parts.keys()].filter((path) => path.includes("/chunk-"));
    if (chunks.length > KEPT_CHUNKS) parts.delete(chunks[0]);
  }

  function unpack(text, type) {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new type(bytes.buffer);
  }

  async function open(name) {
    if (bundles.get(name).table) return bundles.get(name);
    const raw = await need(name, "table"), bundle = bundles.get(name);
    const table = { labels: raw.labels, lower: raw.labels.map((label) => label.toLowerCase()), dead: unpack(raw.dead, Uint8Array) };
    for (const column of ["density", "max", "mean", "label_score"]) table[column] = unpack(raw[column], Float32Array);
    parts.delete(file(name, "table"));
    return Object.assign(bundle, raw.about, { table, n: raw.labels.length, orders: new Map() });
  }

  // ---- the list: sorted once a column, filtered in that order, only visible rows drawn ----
  function order(bundle, by, down) {
    const key = by + down;
    if (bundle.orders.has(key)) return bundle.orders.get(key);
    const rows = new Uint32Array(bundle.n).map((_, i) => i), sign = down ? -1 : 1;
    if (by === "feature") { if (down) rows.reverse(); }
    else if (by === "label") {
      const text = bundle.table.lower;
      rows.sort((a, b) => (text[a] === text[b] ? a - b : !text[a] ? 1 : !text[b] ? -1 : text[a] < text[b] ? -sign : sign));
    } else {
      const values = bundle.table[by], missing = (i) => Number.isNaN(values[i]);
      rows.sort((a, b) => (values[a] === values[b] ? a - b : missing(a) ? (missing(b) ? a - b : 1) : missing(b) ? -1 : (values[a] - values[b]) * sign));
    }
    bundle.orders.set(key, rows);
    return rows;
  }

  function filter() {
    const began = performance.now(), { table, n } = current, sorted = order(current, sort.by, sort.down);
    const words = $("query").value.toLowerCase().split(/\s+/).filter(Boolean), alive = $("hide-dead").checked;
    const low = parseFloat($("low").value), high = parseFloat($("high").value);
    const found = new Uint32Array(n);
    let size = 0;
    for (let r = 0; r < n; r++) {
      const i = sorted[r];
      if (alive && table.dead[i]) continue;
      if (table.density[i] < low || table.density[i] > high) continue;
      if (words.length && !words.every((word) => table.lower[i].includes(word) || String(i).startsWith(word))) continue;
      found[size++] = i;
    }
    view = found.subarray(0, size);
    $("shown").textContent = size === n ? many(n, "feature") : whole(size) + " of " + whole(n);
    $("table").setAttribute("aria-rowcount", size + 1);
    drawn = "";
    draw();
    api.filterMs = performance.now() - began;
  }

  function draw() {
    const box = $("scroller"), first = Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
    const last = Math.min(view.length, first + Math.ceil(box.clientHeight / ROW) + 18);
    const key = [first, last, feature].join();
    if (key === drawn) return;
    drawn = key;
    const held = document.activeElement && document.activeElement.closest("#rows tr");
    const pad = (rows) => { const row = el("tr", { class: "pad", "aria-hidden": "true" }, el("td")); row.style.height = rows * ROW + "px"; return row; };
    const rows = [pad(first)];
    for (let r = first; r < last; r++) rows.push(row(view[r], r));
    rows.push(pad(view.length - last));
    if (!view.length) rows.push(el("tr", { class: "pad" }, el("td", { colspan: COLUMNS.length - 1, class: "nothing" }, "No feature passes these filters.")));
    $("rows").replaceChildren(...rows);
    if (held) { const link = $("rows").querySelector("tr[data-feature='" + held.dataset.feature + "'] a"); if (link) link.focus({ preventScroll: true }); }
  }

  function row(i, r) {
    const t = current.table, cell = (name, text) => el("td", { class: "c-" + name }, text);
    return el("tr", { "data-feature": i, "aria-rowindex": r + 2, class: (t.dead[i] ? "dead " : "") + (i === feature ? "chosen" : "") },
      el("td", { class: "c-feature" }, el("a", { href: link(i), "aria-current": i === feature ? "true" : null }, String(i))),
      el("td", { class: "c-label", title: t.labels[i] || null }, t.dead[i] && !t.labels[i] ? "dead" : t.labels[i]),
      cell("density", number(t.density[i])), cell("max", number(t.max[i])), cell("mean", number(t.mean[i])), cell("label_score", number(t.label_score[i])));
  }

  function heads() {
    $("heads").replaceChildren(...COLUMNS.map(([name, title]) => {
      const state = sort.by === name ? (sort.down ? "descending" : "ascending") : "none";
      return el("th", { scope: "col", class: "c-" + name, "aria-sort": state }, el("button", { type: "button", "data-sort": name }, title));
    }));
  }

  function sortBy(name) {
    sort = { by: name, down: sort.by === name ? !sort.down : name !== "feature" && name !== "label" };
    heads();
    $("heads").querySelector("[data-sort='" + name + "']").focus();
    $("scroller").scrollTop = 0;
    filter();
  }

  function reveal() {
    const at = view.indexOf(feature), box = $("scroller"), room = box.clientHeight - ROW;
    if (at >= 0 && (at * ROW < box.scrollTop || (at + 1) * ROW > box.scrollTop + room)) box.scrollTop = at * ROW - room / 2;
    draw();
  }

  function step(by, replace) {
    if (!current || !view.length) return;
    const at = view.indexOf(feature), to = at < 0 ? 0 : Math.min(view.length - 1, Math.max(0, at + by));
    if (view[to] !== feature) go(view[to], replace);
  }

  // ---- addresses ----
  const link = (i) => "#" + current.name + "/" + i;
  // Not by location.hash, whose event comes later: until then the old feature would stand under the new address.
  function go(i, replace) { history[replace ? "replaceState" : "pushState"](null, "", link(i)); route(); }

  function place() { try { return decodeURIComponent(location.hash.slice(1)).split("/"); } catch { return [location.hash]; } }

  async function route() {
    let [name, index] = place();
    feature = -1; // What is still on its way is not shown any more.
    if (!bundles.has(name)) { if (name) return state("There is no dictionary “" + name + "” on this page."); name = bundles.keys().next().value; }
    if (!current || current.name !== name) {
      state("Loading " + name + " …");
      let bundle;
      try { bundle = await open(name); } catch (error) { return state(error.message, route); }
      if (location.hash && place()[0] !== name) return;
      current = bundle;
      $("bundle").value = name;
      $("about").textContent = summary(bundle);
      for (const node of document.querySelectorAll(".if-maps")) node.hidden = !bundle.maps;
      filter();
    }
    if (index === undefined || index === "") return go(firstAlive(), true);
    if (!/^\d+$/.test(index) || +index >= current.n) return state("There is no feature “" + index + "”: " + current.name + " has features 0 to " + (current.n - 1) + ".");
    show(+index);
  }

  function firstAlive() { for (const i of view) if (!current.table.dead[i]) return i; return 0; }

  function summary(b) {
    const l0 = b.rows ? b.firings / b.rows : 0;
    return [many(b.n, "feature"), whole(b.dead) + " dead", many(b.rows, b.unit), "L0 " + number(l0), b.site].filter(Boolean).join(" · ");
  }

  // ---- one feature ----
  function state(text, again) {
    $("feature").removeAttribute("aria-busy");
    const box = el("p", { class: again ? "state bad" : "state", role: again ? "alert" : "status" }, text, again ? el("button", { type: "button", onclick: again }, "Try again") : null);
    $("feature").replaceChildren(box);
  }

  async function show(i) {
    const bundle = current, part = Math.floor(i / CHUNK);
    feature = i;
    document.title = i + (bundle.table.labels[i] ? " " + bundle.table.labels[i] : "") + " · " + bundle.name;
    reveal();
    if (!parts.has(file(bundle.name, part))) state("Loading feature " + i + " …");
    $("feature").setAttribute("aria-busy", "true");
    try {
      const chunk = await need(bundle.name, part);
      if (current === bundle && feature === i) page(bundle, i, chunk);
    } catch (error) {
      if (current === bundle && feature === i) state(error.message, () => show(i));
    }
    $("feature").removeAttribute("aria-busy");
  }

  function page(bundle, i, chunk) {
    const t = bundle.table, found = chunk.features[i % CHUNK], dead = t.dead[i], box = $("feature");
    const button = (text, by, name) => el("button", { type: "button", "aria-label": name, onclick: () => step(by) }, text);
    const stat = (name, value, note) => el("div", {}, el("dt", {}, name), el("dd", {}, value, note ? el("small", {}, " " + note) : null));
    const stats = [stat("density, share of " + plural(bundle), number(t.density[i]), "= " + whole(found.count) + " of " + whole(bundle.rows)),
      stat("max activation", dead ? "–" : number(t.max[i])), stat("mean where active", dead ? "–" : number(t.mean[i]))];
    if (!dead && found.quantiles.length) stats.push(stat("median where active", number(found.quantiles[bundle.shares.indexOf(0.5)] ?? null)));
    if (!Number.isNaN(t.label_score[i])) stats.push(stat("label score", t.label_score[i].toFixed(3)));
    stats.push(stat("L0 of the dictionary", number(bundle.firings / Math.max(bundle.rows, 1)), "features a " + bundle.unit));
    for (const [name, value] of found.more) stats.push(stat(name, typeof value === "number" ? number(value) : String(value)));
    box.replaceChildren(
      el("div", { class: "top" }, el("h2", {}, el("small", {}, "Feature " + i), t.labels[i] || (dead ? "Dead feature" : "No label")), button("↑", -1, "Previous feature"), button("↓", 1, "Next feature")),
      el("dl", { class: "stats" }, ...stats),
      el("div", { class: "pair" }, dead ? el("p", { class: "state" }, "This feature never fired in " + many(bundle.rows, bundle.unit) + ": it has no activations and no examples.") : histogram(bundle, found), neighbours(bundle, found)));
    if (!dead) box.append(examples(bundle, chunk, found));
    else api.choose = null;
    box.scrollTop = 0;
  }
  const plural = (bundle) => (bundle.unit === "patch" ? "patches" : bundle.unit + "s");

  function histogram(bundle, found) {
    const W = 520, H = 190, L = 50, B = 40, T = 8, counts = found.histogram, first = found.first, edges = bundle.edges;
    const top = Math.max(...counts), base = Math.log10(0.6), span = Math.log10(Math.max(top, 2) * 1.15) - base;
    // The empty bins around zero of a signed feature are left out; a gap stands for them.
    const zero = edges.indexOf(0) - first, after = counts.findIndex((c, k) => c && k >= zero), before = zero < 1 ? -1 : counts.findLastIndex((c, k) => c && k < zero);
    const bins = counts.map((_, k) => k).filter((k) => !(before >= 0 && after >= 0 && k > before && k < after)), cut = before >= 0 && after > before + 1;
    const n = bins.length + (cut ? 2 : 0), x = (k) => L + ((W - L - 12) * (cut && k >= after ? k - after + before + 3 : k)) / n;
    const y = (c) => T + (H - T - B) * (1 - (Math.log10(c) - base) / span), wide = (W - L - 12) / n;
    const picture = svg("svg", { viewBox: "0 0 " + W + " " + H, class: "hist", role: "img", "aria-label": "Histogram of activations from " + number(found.low) + " to " + number(found.high) + "; most " + plural(bundle) + " in a bin: " + whole(top) });
    for (let p = 1; p <= top; p *= 10) picture.append(svg("line", { x1: L, x2: W - 8, y1: y(p), y2: y(p), class: "axis" }), svg("text", { x: L - 6, y: y(p) + 4, "text-anchor": "end" }, p < 1e4 ? whole(p) : p.toExponential(0).replace("e+", "e")));
    for (const k of bins) {
      if (counts[k]) picture.append(svg("rect", { x: x(k) + 0.5, y: y(counts[k]), width: Math.max(wide - 1, 1), height: H - B - y(counts[k]) }));
      const hit = svg("rect", { x: x(k), y: T, width: wide, height: H - B - T, class: "hit" });
      hit.dataset.tip = number(edges[first + k]) + " to " + number(edges[first + k + 1]) + ": " + many(counts[k], bundle.unit);
      picture.append(hit);
    }
    if (cut) picture.append(svg("text", { x: x(before) + 2 * wide, y: H - B - 4, "text-anchor": "middle" }, "0"));
    picture.append(svg("line", { x1: L, x2: W - 8, y1: H - B, y2: H - B, class: "axis" }));
    const ticks = bins.flatMap((k) => [[k, x(k)], [k + 1, x(k) + wide]]).filter(([k]) => n <= 6 || Number.isInteger(Math.log2(Math.abs(edges[first + k]))));
    let free = 0;
    for (const [k, at] of ticks) if (at >= free) {
      free = at + 46;
      picture.append(svg("line", { x1: at, x2: at, y1: H - B, y2: H - B + 4, class: "axis" }), svg("text", { x: at, y: H - B + 16, "text-anchor": "middle" }, String(+edges[first + k].toPrecision(2))));
    }
    picture.append(svg("text", { x: (L + W) / 2, y: H - 5, "text-anchor": "middle" }, "activation (log scale, units of the model)"), svg("text", { x: 12, y: (H - B) / 2, "text-anchor": "middle", transform: "rotate(-90 12 " + (H - B) / 2 + ")" }, plural(bundle) + " (log scale)"));
    return el("section", { "aria-label": "Histogram" }, el("h3", {}, "Activations ", el("small", {}, many(found.count, "firing"))), picture);
  }

  function neighbours(bundle, found) {
    const groups = new Map();
    for (const [kind, other, value] of found.neighbours) groups.set(kind, (groups.get(kind) || []).concat([[other, value]]));
    const box = el("section", { class: "near", "aria-label": "Neighbours" });
    for (const [kind, list] of groups) {
      const entry = ([other, value]) => { const label = bundle.table.labels[other] || ""; return el("li", {}, el("a", { href: link(other), title: label || null }, other + (label ? " " + label : "")), el("span", {}, value.toFixed(2))); };
      box.append(el("div", {}, el("h3", {}, (NEAR[kind] || [kind])[0] + " ", el("small", {}, (NEAR[kind] || ["", ""])[1])), el("ul", {}, ...list.map(entry))));
    }
    return box;
  }

  function examples(bundle, chunk, found) {
    const kinds = TABS.filter(([kind]) => found.examples.some((e) => e.bin === kind));
    if (!kinds.some(([kind]) => kind === tab)) tab = kinds.length ? kinds[0][0] : tab;
    const panel = el("div", { role: "tabpanel", id: "panel", tabindex: "-1" }), signed = bundle.zero > 0;
    const tabs = kinds.map(([kind, title]) => el("button", { type: "button", role: "tab", id: "tab-" + kind, "aria-controls": "panel", onclick: () => choose(kind) }, title + " " + found.examples.filter((e) => e.bin === kind).length));
    const bar = el("div", { role: "tablist", "aria-label": "Examples" }, ...tabs), full = found.scale * (signed ? 127 : 255);
    bar.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) { const to = (kinds.findIndex(([kind]) => kind === tab) + by + kinds.length) % kinds.length; choose(kinds[to][0]); tabs[to].focus(); }
    });
    function choose(kind) {
      tab = kind;
      tabs.forEach((button, t) => { const on = kinds[t][0] === kind; button.setAttribute("aria-selected", on); button.tabIndex = on ? 0 : -1; });
      panel.setAttribute("aria-labelledby", "tab-" + kind);
      const list = found.examples.filter((e) => e.bin === kind), rows = [];
      if (kind === "quantile") list.sort((a, b) => b.quantile - a.quantile || Math.abs(b.activation) - Math.abs(a.activation));
      list.forEach((e, r) => {
        if (kind === "quantile" && (!r || list[r - 1].quantile !== e.quantile)) rows.push(el("h3", { class: "bin" }, "Quantile bin " + (e.quantile + 1) + " of " + bundle.bins + " ", el("small", {}, e.quantile + 1 === bundle.bins ? "strongest firings" : e.quantile ? "" : "weakest firings")));
        rows.push(example(bundle, chunk, found, e));
      });
      panel.classList.toggle("tiles", rows.some((row) => row.classList.contains("tile")));
      panel.replaceChildren(...rows);
    }
    api.choose = (n) => { if (kinds[n]) choose(kinds[n][0]); };
    choose(tab);
    const scale = (full, signed, text) => [signed ? number(-full) : "0", el("i", {}), number(full) + " " + text];
    const legend = el("div", { class: signed ? "legend signed" : "legend", title: "One scale for all examples of this feature" }, ...scale(full, signed, "activation"));
    return el("section", { "aria-label": "Examples" }, el("div", { class: "bar" }, bar, legend, mapLegend(bundle, found, scale)), panel);
  }

  // Where the firing that is marked comes from: on tokens a line below them, of pictures a second one beside the heat.
  function mapLegend(bundle, found, scale) {
    if (!found.map) return null;
    const button = el("button", { type: "button", id: "maps", "aria-pressed": String(maps), "aria-keyshortcuts": "m", title: "Show or hide the maps ( m )", onclick: showMaps }, "maps");
    const text = bundle.maps.method + " at " + bundle.maps.site + (bundle.grid.length ? ", beside" : ", underlined (square-root scale)");
    return el("div", { class: "legend map" + (found.map.signed ? " signed" : "") + (bundle.grid.length ? "" : " line"), title: "One scale for all maps of this feature: what makes it fire at the marked place" }, button, ...scale(found.map.scale * (255 - bundle.maps.zero), found.map.signed, text));
  }

  function showMaps() {
    maps = !maps;
    $("feature").classList.toggle("mapless", !maps);
    if ($("maps")) $("maps").setAttribute("aria-pressed", maps);
  }

  // A map's value as a mark of a colour, and in words. The marked token outshines the others: of tokens the root is shown.
  function mapped(token, found, bundle, step) {
    const value = step - bundle.maps.zero, share = Math.abs(value) / (255 - bundle.maps.zero);
    if (value) token.style.setProperty("--m", (100 * (bundle.grid.length ? share : Math.sqrt(share))).toFixed(1) + "%");
    token.className += value > 0 ? " up" : value < 0 ? " down" : "";
    return number(value * found.map.scale);
  }

  function mapOf(bundle, found, e) {
    const box = el("div", { class: "grid" }), [, columns] = bundle.maps.grid;
    box.style.gridTemplateColumns = "repeat(" + columns + ", 1fr)";
    unpack(e.map, Uint8Array).forEach((step, k) => {
      const cell = el("span", { class: "tok" });
      cell.dataset.tip = mapped(cell, found, bundle, step) + " from row " + Math.floor(k / columns) + ", column " + (k % columns);
      box.append(cell);
    });
    return box;
  }

  function example(bundle, chunk, found, e) {
    const labels = Object.entries(chunk.items[e.item] || {}).map(([key, value]) => el("span", { class: "chip" }, key + ": " + value));
    const heat = unpack(e.window, Uint8Array), tokens = unpack(e.tokens, chunk.wide ? Uint32Array : Uint16Array), mark = e.position - e.start, grid = bundle.grid.length === 2, map = e.map && !grid && unpack(e.map, Uint8Array);
    const where = !grid ? "position " + e.position : e.position < bundle.prefix ? "prefix token " + e.position : "patch " + Math.floor((e.position - bundle.prefix) / bundle.grid[1]) + ", " + ((e.position - bundle.prefix) % bundle.grid[1]);
    const meta = el("div", { class: "meta" }, el("b", {}, number(e.activation)), ...labels, el("span", {}, "item " + e.item + " · " + where));
    const box = el(grid ? "div" : "p", { class: grid ? "grid" : "window" }), picture = grid && chunk.pictures[e.item];
    if (grid) box.style.gridTemplateColumns = "repeat(" + bundle.grid[1] + ", " + (picture ? "1fr" : "max-content") + ")";
    else if (e.start > 0) box.append(el("span", { class: "ws", "data-mark": "… " }));
    for (let k = grid ? bundle.prefix : 0; k < heat.length; k++) {
      const value = heat[k] - bundle.zero, share = Math.abs(value) / (bundle.zero ? 127 : 255);
      const text = grid ? "" : k < tokens.length ? chunk.pieces[tokens[k]] : "▢";
      const token = el("span", { class: "tok" + (value > 0 ? " hot" : value < 0 ? " cold" : "") + (k === mark ? " marked" : "") });
      if (value) token.style.setProperty("--a", (100 * share).toFixed(1) + "%");
      token.dataset.tip = (k === mark ? number(e.activation) : number(value * found.scale)) + " at position " + (e.start + k) + (text ? "   " + JSON.stringify(text) : "") + (map ? "   map " + mapped(token, found, bundle, map[k]) : "");
      box.append(token, spell(token, text));
    }
    if (e.beyond) meta.append(el("span", { class: "beyond" }, "map of tokens not shown " + number(e.beyond)));
    const second = grid && e.map ? mapOf(bundle, found, e) : null;
    if (!picture) return el("div", { class: "example" }, meta, box, second && el("div", { class: "picture map bare" }, second));
    const caption = Object.entries(chunk.items[e.item] || {}).map(([key, value]) => { const chip = el("span", { class: "chip" }, value); chip.dataset.tip = key + ": " + value; return chip; });
    meta.replaceChildren(el("b", {}, number(e.activation)), el("span", {}, where), ...caption, el("span", {}, "item " + e.item));
    if (!second) return el("div", { class: "example tile" }, overlay(bundle, bundle, picture, box), meta);
    const beside = overlay(bundle, bundle.maps, picture, second);
    beside.classList.add("map");
    return el("div", { class: "example tile two" }, el("div", { class: "both" }, overlay(bundle, bundle, picture, box), beside), meta);
  }

  // A thumbnail cut from its sheet, and the patches over it, each where it lies in the model's input.
  function overlay(bundle, layout, [sheet, left, top, width, height], grid) {
    const scale = Math.max(1, Math.round(PICTURE / width)), [rows, columns] = layout.grid;
    const image = el("img", { src: "data/" + bundle.name + "/sheet-" + String(sheet).padStart(4, "0") + ".png", alt: "", loading: "lazy" });
    Object.assign(image.style, { width: width + "px", height: height + "px", objectPosition: -left + "px " + -top + "px", transform: "scale(" + scale + ")", imageRendering: scale > 1 ? "pixelated" : "auto" });
    const known = layout.input.length && layout.stride.length, shown = [height * scale, width * scale];
    const length = (axis, cells) => (known ? (cells * layout.stride[axis] * shown[axis]) / layout.input[axis] : shown[axis]) + "px";
    const begin = (axis) => (known && layout.start.length ? (layout.start[axis] * shown[axis]) / layout.input[axis] : 0) + "px";
    Object.assign(grid.style, { top: begin(0), left: begin(1), height: length(0, rows), width: length(1, columns) });
    const box = el("div", { class: "picture" }, image, grid);
    Object.assign(box.style, { width: width * scale + "px", height: height * scale + "px" });
    return box;
  }

  // White space and what cannot be seen get a quiet mark; the text itself stays in the page, so that copying is true.
  const UNSEEN = /(\r\n|[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]| {2,})/;
  // A line break at the end is handed back to stand behind the token, whose outline would else reach the next line.
  function spell(token, text) {
    const end = /(\r?\n)?$/.exec(text)[0], mark = el("span", { class: "ws", "data-mark": "↵" });
    if (text === " ") { token.append(el("span", { class: "ws over", "data-mark": "·" }, text)); return ""; }
    for (const part of text.slice(0, text.length - end.length).split(UNSEEN)) {
      if (!part) continue;
      if (!UNSEEN.test(part)) token.append(part);
      else if (part[0] === " ") token.append(el("span", { class: "ws over", "data-mark": "·".repeat(part.length) }, part));
      else if (part.endsWith("\n")) token.append(el("span", { class: "ws", "data-mark": "↵" }, part));
      else if (part === "\t") token.append(el("span", { class: "ws over", "data-mark": "⇥" }, part));
      else token.append(el("span", { class: "ws", "data-mark": "U+" + part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") }, part));
    }
    if (end) token.append(mark);
    return end;
  }

  // ---- events ----
  function tip(event) {
    const over = event.target.closest ? event.target.closest("[data-tip]") : null, box = $("tip");
    box.hidden = !over;
    if (!over) return;
    box.textContent = over.dataset.tip;
    const at = over.getClientRects()[0] || over.getBoundingClientRect();
    box.style.left = Math.max(4, Math.min(at.left, innerWidth - box.offsetWidth - 8)) + "px";
    box.style.top = (at.top > 40 ? at.top - box.offsetHeight - 5 : at.bottom + 5) + "px";
  }

  function key(event) {
    const typing = event.target.matches("input:not([type=checkbox]), select"), query = $("query");
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (event.key === "Escape" && typing) return event.target.blur();
    if (event.target === query && event.key === "Enter") { event.preventDefault(); query.blur(); if (view.length) go(view[0]); return; }
    const by = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    if (typing && !(event.target === query && event.key.startsWith("Arrow"))) return;
    if (by) step(by, event.repeat);
    else if (typing) return;
    else if (event.key === "/") { query.focus(); query.select(); }
    else if (event.key === "?") $("help").showModal();
    else if (event.key === "m" && $("maps")) showMaps();
    else if ("123".includes(event.key) && api.choose) api.choose(event.key - 1);
    else return;
    event.preventDefault();
  }

  function listen() {
    let waiting = false;
    $("scroller").addEventListener("scroll", () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; if (current) draw(); }); } });
    for (const id of ["query", "hide-dead", "low", "high"]) $(id).addEventListener("input", () => { if (current) { $("scroller").scrollTop = 0; filter(); } });
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("heads").addEventListener("click", (event) => { const button = event.target.closest("button"); if (button && current) sortBy(button.dataset.sort); });
    $("rows").addEventListener("click", (event) => { const row = event.target.closest("tr[data-feature]"); if (!row || event.metaKey || event.ctrlKey || event.shiftKey) return; event.preventDefault(); go(+row.dataset.feature); if (innerWidth <= 780) $("feature").scrollIntoView(); });
    $("bundle").addEventListener("change", () => { location.hash = "#" + $("bundle").value; });
    $("help-button").addEventListener("click", () => $("help").showModal());
    $("skip").addEventListener("click", (event) => { event.preventDefault(); $("feature").focus(); });
    addEventListener("resize", () => { drawn = ""; if (current) draw(); });
    addEventListener("hashchange", route);
    document.addEventListener("keydown", key);
    for (const kind of ["pointerover", "scroll"]) document.addEventListener(kind, tip, true);
  }

  async function begin() {
    heads();
    listen();
    try {
      for (const about of (await need(null, "page")).bundles) bundles.set(about.name, { name: about.name });
    } catch (error) { return state(error.message, () => location.reload()); }
    $("bundle").append(...[...bundles.keys()].map((name) => el("option", { value: name }, name)));
    $("switch").hidden = bundles.size < 2;
    route();
  }

  const api = { receive, begin, filterMs: 0, choose: null };
  return api;
})();
unweave.begin();
