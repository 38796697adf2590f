// Curves of a page: drag to zoom, hover or arrow keys to read, log scale, smoothing, full range.
// Each figure holds its numbers as JSON and a still picture, which stays where there is no script.
"use strict";
(() => {
  const NS = document.querySelector("svg")?.namespaceURI, L = 58, R = 12, T = 10, B = 38, H = 280;
  const make = (tag, at, words) => {
    const one = document.createElementNS(NS, tag);
    for (const k in at) one.setAttribute(k, at[k]);
    if (words !== undefined) one.textContent = words;
    return one;
  };
  const show = v => {
    if (v === null || !isFinite(v)) return "no value";
    const a = Math.abs(v);
    if (a >= 1e6 || (a > 0 && a < 1e-4)) return Number(v.toPrecision(3)).toExponential().replace("e+", "e");
    return a >= 1000 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(4));
  };
  const step = rough => {
    const unit = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map(m => m * unit).find(s => s >= rough * 0.999);
  };
  // Multiples of a round step between two values; `beyond`, up to the next ones outwards, where an
  // axis ends.
  const ticks = (lo, hi, n, beyond) => {
    const s = step((hi - lo) / Math.max(2, n)), out = [];
    const first = beyond ? Math.floor(lo / s + 1e-9) : Math.ceil(lo / s - 1e-9);
    const last = beyond ? Math.ceil(hi / s - 1e-9) : Math.floor(hi / s + 1e-9);
    for (let i = first; i <= last; i++) out.push(i * s);
    return out;
  };
  // The numbers of an axis, all with as many digits as the step between them asks for.
  const labels = at => {
    const s = at[1] - at[0], most = Math.max(...at.map(Math.abs));
    if (at.length < 2 || most >= 1e6 || most < 1e-3) return at.map(show);
    const digits = Math.max(0, -Math.floor(Math.log10(s) + 1e-9));
    return at.map(v => (Math.abs(v) < s / 1e6 ? 0 : v).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  };
  // 1, 2 and 5 times powers of ten from the last not above lo to the first not below hi; where
  // they are many, powers of ten.
  const decades = (lo, hi) => {
    const first = Math.floor(Math.log10(lo)), last = Math.ceil(Math.log10(hi)), out = [];
    const within = last - first > 3 ? [1] : [1, 2, 5];
    for (let k = first; k <= last; k++) for (const m of within) out.push(Number(`${m}e${k}`));
    const from = out.findLastIndex(v => v <= lo * 1.001), to = out.findIndex(v => v >= hi * 0.999);
    return out.slice(Math.max(from, 0), to < 0 ? undefined : to + 1);
  };
  // Move words of one margin apart, so that none lies over another or beyond the frame.
  const apart = (words, top, bottom) => {
    words.sort((p, q) => p[0] - q[0]);
    words.forEach((w, i) => { w[0] = Math.max(w[0], top, i ? words[i - 1][0] + 13 : top); });
    for (let i = words.length - 1, most = bottom; i >= 0; i--, most -= 13) words[i][0] = Math.min(words[i][0], most);
    return words;
  };
  // Exponential moving average, corrected for its start; gaps stay gaps.
  const smooth = (ys, w) => {
    if (!w) return ys;
    let sum = 0, all = 0;
    return ys.map(y => y === null ? null : ((sum = w * sum + (1 - w) * y), (all = w * all + 1 - w), sum / all));
  };
  function curve(figure) {
    const data = JSON.parse(figure.querySelector(":scope > script").textContent);
    const still = figure.querySelector(":scope > svg"), tools = document.createElement("div");
    const said = document.createElement("output");
    tools.className = "tools"; said.setAttribute("aria-live", "polite");
    const series = data.series.map(s => ({ ...s, low: s.low.length ? s.low : s.mean, high: s.high.length ? s.high : s.mean }));
    const ends = [Math.min(...series.map(s => s.x[0])), Math.max(...series.map(s => s.x[s.x.length - 1]))];
    if (!(ends[1] > ends[0])) ends[ends[0] > 0 ? 0 : 1] = ends[0] > 0 ? 0 : ends[0] + 1;
    const state = { lo: ends[0], hi: ends[1], log: false, full: false, weight: 0, at: null, drag: null };
    const svg = make("svg", { role: "img", tabindex: "0", "aria-label": still.getAttribute("aria-label") +
      ". Arrow keys read values, plus and minus zoom, 0 shows all, l switches the scale, s smooths." });
    const button = (words, press) => {
      const b = document.createElement("button");
      b.type = "button"; b.textContent = words; b.onclick = () => { press(b); draw(); };
      tools.append(b); return b;
    };
    const toggle = (b, on) => b.setAttribute("aria-pressed", String(on));
    const log = button("log", b => toggle(b, state.log = !state.log)); toggle(log, false);
    const weights = [0, 0.6, 0.9, 0.97];
    const soft = button("smooth: off", b => {
      state.weight = weights[(weights.indexOf(state.weight) + 1) % weights.length];
      b.textContent = "smooth: " + (state.weight || "off");
    });
    const full = button("full range", b => toggle(b, state.full = !state.full)); toggle(full, false);
    const all = button("show all", () => { [state.lo, state.hi] = ends; });
    tools.append(said); still.replaceWith(svg); svg.before(tools);
    let W = 356, px, py, vx;
    const usable = v => v !== null && isFinite(v) && (!state.log || v > 0);
    // The axis follows the curves (2nd to 98th percentile), so that one spike doesn't flatten it.
    function range(shown) {
      const v = [];
      for (const s of shown) s.y.forEach((y, i) => {
        if (s.x[i] < state.lo || s.x[i] > state.hi) return;
        for (const one of [y, s.low[i], s.high[i]]) if (usable(one)) v.push(one);
      });
      if (!v.length) return [state.log ? 1 : 0, state.log ? 10 : 1, false];
      v.sort((a, b) => a - b);
      const q = p => v[Math.round(p * (v.length - 1))];
      let lo = v[0], hi = v[v.length - 1], cut = false;
      if (!state.full && v.length > 20) {
        const room = (q(0.98) - q(0.02)) || Math.abs(q(0.5)) * 0.1 || 1;
        if (hi > q(0.98) + 2 * room) { hi = q(0.98) + room; cut = true; }
        if (lo < q(0.02) - 2 * room) { lo = q(0.02) - room; cut = true; }
      }
      if (hi - lo < 1e-12) {
        const d = Math.abs(lo) * 0.1 || 0.5;
        [lo, hi] = data.shares ? [Math.max(lo - d, 0), Math.min(hi + d, 1)] : [lo - d, hi + d];
        if (state.log && lo <= 0) lo = hi / 10;
      }
      return [lo, hi, cut];
    }
    function draw() {
      W = Math.max(300, Math.floor(figure.clientWidth)); svg.replaceChildren();
      svg.setAttribute("viewBox", `0 0 ${W} ${H}`); svg.setAttribute("width", W); svg.setAttribute("height", H);
      const shown = series.map(s => ({ ...s, y: smooth(s.mean, state.weight) }));
      const [least, most, cut] = range(shown), f = state.log ? Math.log10 : v => v;
      const marks = state.log ? decades(least, most) : ticks(least, most, 5, true);
      const a = f(marks[0]), b = f(marks[marks.length - 1]);
      const whole = state.lo === ends[0] && state.hi === ends[1];
      const along = ticks(state.lo, state.hi, W / 70, whole), beside = state.log ? marks.map(show) : labels(marks);
      const [left, right] = whole ? [along[0], along[along.length - 1]] : [state.lo, state.hi];
      px = x => L + (x - left) / (right - left) * (W - L - R);
      vx = p => left + (p - L) / (W - L - R) * (right - left);
      py = y => H - B - (f(y) - a) / (b - a) * (H - T - B);
      const held = y => Math.min(Math.max(py(y), T), H - B);
      labels(along).forEach((words, i) => {
        const x = px(along[i]);
        svg.append(make("path", { class: "grid", d: `M${x} ${T}V${H - B}` }),
          make("text", { x: Math.min(x, W - 1 - words.length * 3.8), y: H - B + 15, "text-anchor": "middle" }, words));
      });
      beside.forEach((words, i) => {
        const y = py(marks[i]);
        svg.append(make("path", { class: "grid", d: `M${L} ${y}H${W - R}` }),
          make("text", { x: L - 5, y: y + 4, "text-anchor": "end" }, words));
      });
      svg.append(make("path", { class: "axis", d: `M${L} ${T}V${H - B}H${W - R}` }),
        make("text", { x: (L + W - R) / 2, y: H - 5, "text-anchor": "middle" }, data.x));
      // A line beyond the axis is not drawn at its edge: words say where it would be.
      const named = [];
      for (const r of data.marks) if (usable(r.value)) {
        const y = held(r.value), off = py(r.value) - y;
        if (Math.abs(off) < 1) svg.append(make("path", { class: "dash", d: `M${L} ${y}H${W - R}` }));
        named.push([y - 4, Math.abs(off) < 1 ? r.name : `${r.name}: ${show(r.value)}, ${off < 0 ? "above" : "below"}`]);
      }
      apart(named, T + 10, H - B - 4).forEach(([y, words]) => svg.append(make("text", { x: W - R, y, "text-anchor": "end" }, words)));
      shown.forEach((s, i) => {
        const c = i % 8, inside = k => s.x[k] >= state.lo - 1e-9 && s.x[k] <= state.hi + 1e-9;
        let line = "", up = [], down = [], pen = false;
        const band = () => { if (up.length > 1) svg.append(make("path", { class: `band f${c}`, d: "M" + up.concat(down.reverse()).join("L") + "Z" })); up = []; down = []; };
        for (let k = 0; k < s.x.length; k++) {
          if (!inside(k)) { pen = false; band(); continue; }
          if (!usable(s.y[k])) { pen = false; band(); continue; }
          const x = px(s.x[k]).toFixed(1);
          line += (pen ? "L" : "M") + x + " " + held(s.y[k]).toFixed(1); pen = true;
          if (usable(s.low[k]) && usable(s.high[k])) { up.push(x + " " + held(s.high[k]).toFixed(1)); down.push(x + " " + held(s.low[k]).toFixed(1)); }
        }
        band();
        svg.append(make("path", { class: s.x.length > 1 ? `line s${c}` : `dots big s${c}`, d: line + (s.x.length > 1 ? "" : "h0") }));
      });
      if (cut) svg.append(make("text", { x: L + 5, y: T + 10 }, "spikes go beyond: full range"));
      if (state.drag && state.at !== null) {
        const [p, q] = [state.drag, state.at].sort((m, n) => m - n);
        svg.append(make("rect", { class: "choice", x: p, y: T, width: q - p, height: H - T - B }));
      } else if (state.at !== null) svg.append(make("path", { class: "cursor", d: `M${state.at} ${T}V${H - B}` }));
    }
    function read() {
      if (state.at === null) { said.textContent = ""; return; }
      const x = vx(state.at);
      const fine = state.hi - state.lo < 50 ? x : Math.round(x);
      said.textContent = data.x + " " + show(fine) + ": " + series.map(s => {
        let k = 0;
        for (let i = 1; i < s.x.length; i++) if (Math.abs(s.x[i] - x) < Math.abs(s.x[k] - x)) k = i;
        const spread = s.low[k] !== null && s.high[k] > s.low[k] ? ` (${show(s.low[k])} to ${show(s.high[k])})` : "";
        return (series.length > 1 || s.name ? s.name + " " : "") + show(s.mean[k]) + spread;
      }).join(", ");
    }
    const clamp = p => Math.min(Math.max(p, L), W - R);
    const where = e => clamp((e.clientX - svg.getBoundingClientRect().left) * W / svg.getBoundingClientRect().width);
    const zoom = (lo, hi) => { if (hi - lo > (ends[1] - ends[0]) * 1e-4) { state.lo = Math.max(ends[0], lo); state.hi = Math.min(ends[1], hi); } };
    svg.onpointerdown = e => { state.drag = where(e); svg.setPointerCapture(e.pointerId); };
    svg.onpointermove = e => { state.at = where(e); draw(); read(); };
    svg.onpointerup = e => {
      const p = state.drag, q = where(e); state.drag = null;
      if (p !== null && Math.abs(q - p) > 6) zoom(...[vx(p), vx(q)].sort((m, n) => m - n));
      draw();
    };
    svg.onpointerleave = () => { if (state.drag === null) { state.at = null; draw(); } };
    svg.ondblclick = () => { [state.lo, state.hi] = ends; draw(); };
    svg.onkeydown = e => {
      const wide = state.hi - state.lo, mid = (state.hi + state.lo) / 2;
      if (e.key === "ArrowRight" || e.key === "ArrowLeft")
        state.at = clamp((state.at ?? L) + (e.key === "ArrowRight" ? 1 : -1) * (e.shiftKey ? 40 : 8));
      else if (e.key === "+" || e.key === "=") zoom(mid - wide / 4, mid + wide / 4);
      else if (e.key === "-") zoom(mid - wide, mid + wide);
      else if (e.key === "0") [state.lo, state.hi] = ends;
      else if (e.key === "l") log.click();
      else if (e.key === "s") soft.click();
      else return;
      e.preventDefault(); draw(); read();
    };
    draw();  // at once: the observer calls only when the window is painted
    new ResizeObserver(draw).observe(figure);
  }
  document.querySelectorAll("figure.curve").forEach(curve);
})();
