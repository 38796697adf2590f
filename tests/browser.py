"""A headless Chromium, driven through chromedriver's protocol without a package."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that WebDriver's standard names
# What a careful reader would object to in any page.
_OBJECTIONS = r"""
const out = [], page = document.scrollingElement;
const bare = /^(nan|NaN|None|inf|undefined|null|True|False)$/;
const said = document.querySelector(".verdict");
if (document.body && !(said && said.getBoundingClientRect().bottom + scrollY <= innerHeight))
  out.push("the first screen does not say the result");
const known = "figure > [type='application/json'], body > :last-child";
if (document.querySelector(`body script:not(${known})`))
  out.push("a script that is not the page's own");
// WCAG's contrast of words with what is behind them: 4.5 is wanted of text of this size
const paint = document.createElement("canvas").getContext?.("2d", { willReadFrequently: true });
const rgba = colour => {
  paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
  return [...paint.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = one => {
  for (let e = one; e; e = e.parentElement) {
    const colour = rgba(getComputedStyle(e).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255];
};
const seen = {};
if (document.body) document.querySelectorAll("body *").forEach(one => {
  const style = getComputedStyle(one);
  const own = [...one.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  if (!own || one.closest("script, style, title") || !one.getClientRects().length) return;
  const colour = one.ownerSVGElement ? style.fill : style.color, paper = behind(one);
  const key = `${colour} on ${paper}`;
  seen[key] ??= (() => {
    const [a, b] = [light(rgba(colour)), light(paper)].sort((p, q) => q - p);
    return (a + 0.05) / (b + 0.05);
  })();
  if (seen[key] < 4.5) out.push(`faint (${seen[key].toFixed(1)}): ${one.textContent}`);
});
if (page.scrollWidth > page.clientWidth) out.push(`wider than the window: ${page.scrollWidth}`);
document.querySelectorAll("svg[viewBox]").forEach(svg => {
  const frame = svg.getBoundingClientRect();
  if (!frame.width) return;
  const name = svg.closest("figure")?.querySelector("h3")?.textContent ?? "a picture";
  if (Math.abs(frame.width / svg.viewBox.baseVal.width - 1) > 0.03) out.push(`${name}: stretched`);
  const words = [...svg.querySelectorAll("text")].filter(t => t.textContent.trim())
    .map(t => [t.textContent, t.getBoundingClientRect()]);
  if (svg.querySelector(".dots:not(.big):not(:has(> title))"))
    out.push(`${name}: points that the pointer does not name`);
  for (const one of svg.querySelectorAll("text, title"))
    if (one.textContent.split(/[\s:,]+/).some(word => bare.test(word)))
      out.push(`${name}: not for people: ${one.textContent}`);
  words.forEach(([text, box], i) => {
    if (box.left < frame.left - 1 || box.right > frame.right + 1 ||
        box.top < frame.top - 2 || box.bottom > frame.bottom + 2) out.push(`${name}: cut: ${text}`);
    for (const [other, near] of words.slice(i + 1)) {
      const wide = Math.min(box.right, near.right) - Math.max(box.left, near.left);
      const tall = Math.min(box.bottom, near.bottom) - Math.max(box.top, near.top);
      if (wide > 1.5 && tall > 4) out.push(`${name}: ${text} lies over ${other}`);
    }
  });
});
document.querySelectorAll("table").forEach(table => {
  const heads = table.tHead?.rows[0]?.cells ?? [], first = table.tBodies[0]?.rows[0]?.cells ?? [];
  [...heads].forEach((head, i) => {
    if (!first[i] || !head.getClientRects().length) return;
    if (getComputedStyle(head).textAlign !== getComputedStyle(first[i]).textAlign)
      out.push(`not aligned with its column: ${head.textContent}`);
  });
  for (const cell of table.querySelectorAll("th, td"))
    if (cell.scrollWidth > cell.clientWidth + 1) out.push(`beyond its cell: ${cell.textContent}`);
  const around = table.parentElement;
  if (around.scrollWidth > around.clientWidth + 1) {  // it scrolls: its first column has to stay
    const one = table.tBodies[0].rows[0].cells[0];
    if (getComputedStyle(one).position !== "sticky" || !table.tHead)
      out.push(`its names scroll out of view: ${one.textContent}`);
    if (one.clientWidth > innerWidth * 0.5)
      out.push(`its names hide the rest: ${one.textContent}`);
  }
  for (const cell of table.querySelectorAll("td"))
    if (bare.test(cell.textContent))
      out.push(`not for people: ${cell.textContent}`);
});
// A word is broken only where it says so: at a hyphen, or where the page lets it (<wbr>).
const range = document.createRange();
const worded = "h1, h2, h3, p, li, td, th, figcaption";
if (document.body) document.querySelectorAll(worded).forEach(one => {
  if (!one.getClientRects().length) return;
  const walk = document.createTreeWalker(one, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());)
    for (const { 0: word, index } of node.data.matchAll(/[^\s\/-]{2,20}(?![^\s\/-])/g)) {
      if (/[^\s\/-]/.test(node.data[index - 1] ?? " ")) continue;  // the end of a very long one
      if (/[\u2e80-\uffff]/.test(word)) continue;  // Chinese and Japanese break anywhere
      range.setStart(node, index); range.setEnd(node, index + word.length);
      const tops = [...range.getClientRects()].map(box => Math.round(box.top));
      if (Math.max(...tops) - Math.min(...tops) > 4) out.push(`broken: ${word}`);
    }
});
return [...new Set(out)];
"""
_PATIENCE = 120  # seconds for a busy machine to start a browser


class Browser:
    """One window of a browser."""

    def __init__(self, address: str, session: str) -> None:
        self._base = f"{address}/session/{session}"

    def open(
        self, page: Path, width: int = 1280, height: int = 900, *, scheme: str = "light"
    ) -> None:
        """Show a file in a window of exactly this width, in a colour scheme."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._developer("Emulation.setDeviceMetricsOverride", metrics)
        liked = [{"name": "prefers-color-scheme", "value": scheme}]
        self._developer("Emulation.setEmulatedMedia", {"features": liked})
        _post(f"{self._base}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *values: Any) -> Any:
        """Run a function body in the page; return what it returns."""
        return _post(f"{self._base}/execute/sync", {"script": script, "args": list(values)})

    def hover(self, selector: str, share: float) -> None:
        """Rest the pointer at a share of an element's width."""
        x, y = self._place(selector, share)
        self._point([{"type": "pointerMove", "x": x, "y": y, "duration": 0}])

    def drag(self, selector: str, start: float, end: float) -> None:
        """Drag from one share of an element's width to another."""
        (x, y), (to, _) = self._place(selector, start), self._place(selector, end)
        self._point(
            [
                {"type": "pointerMove", "x": x, "y": y, "duration": 0},
                {"type": "pointerDown", "button": 0},
                {"type": "pointerMove", "x": to, "y": y, "duration": 20},
                {"type": "pointerUp", "button": 0},
            ]
        )

    def _place(self, selector: str, share: float) -> tuple[int, int]:
        """Return a point at half the height of an element, which is scrolled into view."""
        box = self.run(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center'});"
            "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]",
            selector,
        )
        return round(box[0] + box[2] * share), round(box[1] + box[3] / 2)

    def _point(self, moves: list[dict[str, Any]]) -> None:
        pointer = {"type": "pointer", "id": "mouse", "actions": moves}
        _post(f"{self._base}/actions", {"actions": [pointer]})

    def press(self, selector: str, keys: str) -> None:
        """Type keys into an element."""
        found = _post(f"{self._base}/element", {"using": "css selector", "value": selector})
        _post(f"{self._base}/element/{found[_ELEMENT]}/value", {"text": keys})

    def screenshot(self, path: Path) -> None:
        """Write the page as a PNG."""
        shot = self._developer("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))

    def console(self) -> list[str]:
        """Return what the page's console said since the last call: errors, refusals, requests."""
        entries = _post(f"{self._base}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def objections(self) -> list[str]:
        """Return layout problems: overflow, text cut off or overlapping, ..."""
        found: list[str] = self.run(_OBJECTIONS)
        return found + self.console()

    def requests(self) -> list[str]:
        """Return the addresses requested by the page, except its own."""
        names: list[str] = self.run(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        return names

    def _developer(self, command: str, values: dict[str, Any]) -> Any:
        return _post(f"{self._base}/goog/cdp/execute", {"cmd": command, "params": values})


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Start a browser whose profile is in `folder`; skip the test where there is none."""
    driver, binary = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or binary is None:
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium-driver")
    log = folder / "chromedriver.log"
    with log.open("wb") as out:
        process = subprocess.Popen([driver, "--port=0"], stdout=out, stderr=out)
    try:
        address = f"http://127.0.0.1:{_port(log, process)}"
        options = {"binary": binary, "args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]}
        asked = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = _post(f"{address}/session", {"capabilities": {"alwaysMatch": asked}})
        browser = Browser(address, made["sessionId"])
        yield browser
        _ask(f"{address}/session/{made['sessionId']}", None, "DELETE")
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until the driver says where it listens."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if "started successfully on port" in line:
                return int(line.rstrip(".").rsplit(" ", 1)[1])
        time.sleep(0.05)
    raise AssertionError(f"chromedriver did not start:\n{log.read_text(errors='replace')}")


def _post(address: str, body: dict[str, Any]) -> Any:
    return _ask(address, body, "POST")


def _ask(address: str, body: dict[str, Any] | None, method: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    request.method = method
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{address}: {error.read().decode(errors='replace')}") from None
