// Adds keys, copying and a watch over the ticks. Every page does its work without this file.
"use strict";
(() => {
  const all = (what, root = document) => [...root.querySelectorAll(what)];
  const one = (what, root = document) => root.querySelector(what);

  // Copying: the buttons are hidden where they could do nothing.
  if (navigator.clipboard) {
    for (const button of all("[data-copy]")) {
      const word = button.textContent;
      button.hidden = false;
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(button.dataset.copy);
          button.textContent = "Copied";
        } catch {
          button.textContent = "Not allowed";
        }
        setTimeout(() => { button.textContent = word; }, 1500);
      });
    }
  }

  // Local time, where the page says UTC.
  for (const time of all("time[datetime]")) {
    const then = new Date(time.dateTime);
    if (!Number.isNaN(then.getTime())) {
      time.title = `${time.title || time.textContent} · ${then.toLocaleString()} here`;
    }
  }

  // A choice takes effect at once.
  const namespace = one("select#namespace");
  if (namespace) namespace.addEventListener("change", () => namespace.form.requestSubmit());

  // Comparing: two ticks and no more; a third replaces the first of them.
  const form = one("#pick");
  let ticked = [];
  const said = form && one(".picked", form);
  const compare = form && one(".compare button", form);
  const label = (box) => box.parentElement.querySelector(".open").getAttribute("aria-label");
  const tell = () => {
    compare.disabled = ticked.length !== 2;
    if (!ticked.length) said.textContent = "Tick two profiles to see what changed between them.";
    else if (ticked.length === 1) said.textContent = `${label(ticked[0])} and …`;
    else said.textContent = `${label(ticked[0])} and ${label(ticked[1])}`;
  };
  const tick = (box) => {
    ticked = ticked.filter((held) => held !== box);
    if (box.checked) ticked.push(box);
    while (ticked.length > 2) ticked.shift().checked = false;
    tell();
  };
  if (form) {
    ticked = all("input[name=pick]:checked", form).slice(-2);
    for (const box of all("input[name=pick]:checked", form)) box.checked = ticked.includes(box);
    tell();
    form.addEventListener("change", (event) => { if (event.target.name === "pick") tick(event.target); });
    // Coming back brings old ticks back after this script has run.
    addEventListener("pageshow", () => { ticked = all("input[name=pick]:checked", form).slice(-2); tell(); });
  }

  // Keys.
  const help = one("#keys");
  const asks = one(".keys");
  if (asks && help) {
    asks.hidden = false;
    asks.addEventListener("click", () => help.showModal());
  }
  const rows = all(".captures .artifact");
  let current = -1;
  const here = () => {
    const focused = document.activeElement && document.activeElement.closest(".artifact");
    return focused ? rows.indexOf(focused) : current;
  };
  const move = (step) => {
    if (!rows.length) return;
    current = Math.min(Math.max(here() + step, 0), rows.length - 1);
    rows[current].scrollIntoView({ block: "nearest" });
    one(".open", rows[current]).focus();
  };
  const follow = (what) => {
    const row = rows[here()];
    const link = row ? one(what, row) : one(`main > .ways ${what}, .tools ${what}`);
    if (link) link.click();
  };
  const keys = {
    j: () => move(1),
    ArrowDown: () => move(1),
    k: () => move(-1),
    ArrowUp: () => move(-1),
    f: () => follow("a.flame"),
    t: () => follow("a.top"),
    x: () => { const box = rows[here()] && one("input", rows[here()]); if (box) box.click(); },
    d: () => { if (form && ticked.length === 2) form.requestSubmit(); },
    n: () => { const link = one(".pager .older"); if (link) link.click(); },
    p: () => { const link = one(".pager .newest"); if (link) link.click(); },
    "/": () => { const box = one("#q"); if (box) { box.focus(); box.select(); } },
    "?": () => { if (help) help.showModal(); },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (typing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (help && help.open) return;
    const act = Object.hasOwn(keys, event.key) ? keys[event.key] : null;
    if (!act || (event.key.startsWith("Arrow") && !rows.length)) return;
    event.preventDefault();
    act();
  });
})();
