"use strict";

(() => {
  const PAGE = 100; // rows of a large table shown at once
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;

  const storage = (use) => {
    try {
      return use(localStorage);
    } catch {
      return null; // some browsers refuse it to pages opened as files
    }
  };

  let theme = storage((store) => store.getItem("report-theme"));
  const applyTheme = (next) => {
    theme = THEMES.includes(next) ? next : "auto";
    root.dataset.theme = theme;
  };
  applyTheme(theme); // before anything is painted

  const themeButton = () => {
    const button = document.querySelector("button.theme");
    const label = () => (button.textContent = `Theme: ${theme}`);
    button.addEventListener("click", () => {
      applyTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
      storage((store) => store.setItem("report-theme", theme));
      label();
    });
    label();
    button.hidden = false;
  };

  const copyButton = (button) => {
    const status = button.nextElementSibling;
    const code = button.parentElement.querySelector("code");
    button.addEventListener("click", async () => {
      let copied = true;
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        getSelection().selectAllChildren(code);
        copied = document.execCommand("copy");
      }
      status.textContent = copied ? "Copied" : "Selected: copy it with the keyboard";
      setTimeout(() => (status.textContent = ""), 3000);
    });
    button.hidden = false;
  };

  const collator = new Intl.Collator("en", { numeric: true });
  // numbers before texts; null, which is missing, comes last in both directions
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return typeof a === "number" ? -sign : sign;
    return sign * (typeof a === "number" ? a - b : collator.compare(a, b));
  };

  const element = (tag, className, ...content) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...content);
    return made;
  };

  // a row of a large table, as page.html would write it
  const build = (cells, styles) => {
    const row = document.createElement("tr");
    cells.forEach(([text, , reason, tone], index) => {
      const cell = element(index ? "td" : "th", styles[index], tone ? element("span", tone, text) : text);
      if (!index) cell.scope = "row";
      if (reason) cell.append(" ", element("small", "", reason));
      row.append(cell);
    });
    return row;
  };

  // all of a table's rows: what they are sorted by, what they are found by, and the element that shows them
  const rowsOf = (table, data, styles) => {
    if (!data) {
      return [...table.tBodies[0].rows].map((node) => ({
        keys: JSON.parse(node.dataset.keys),
        text: [...node.cells].map((cell) => cell.textContent).join("\n").toLowerCase(),
        node: () => node,
      }));
    }
    return JSON.parse(data.textContent).map((short) => {
      const cells = short.map((cell, index) =>
        typeof cell === "string" ? [cell, styles[index] === "number" ? Number(cell) : cell] : cell,
      );
      let node = null;
      return {
        keys: cells.map((cell) => cell[1]),
        text: cells.map((cell) => `${cell[0]} ${cell[2] ?? ""}`).join("\n").toLowerCase(),
        node: () => (node ??= build(cells, styles)),
      };
    });
  };

  const enhance = (box) => {
    const table = box.querySelector("table");
    const region = box.querySelector(".scroll");
    const tools = box.querySelector(".tools");
    const pages = box.querySelector(".pages");
    const heads = [...table.tHead.rows[0].cells];
    const rows = rowsOf(table, box.querySelector("script"), heads.map((head) => head.className));
    let size = pages ? PAGE : Infinity;
    let found = rows;
    let first = 0;

    const show = () => {
      const shown = found.slice(first, first + size);
      table.tBodies[0].replaceChildren(...shown.map((row) => row.node()));
      if (tools) {
        const [some, all] = [found.length, rows.length].map((count) => count.toLocaleString("en"));
        tools.querySelector(".count").textContent = `showing ${some} of ${all}`;
      }
      if (!pages) return;
      table.setAttribute("aria-rowcount", found.length + 1);
      shown.forEach((row, index) => row.node().setAttribute("aria-rowindex", first + index + 2));
      const [from, to, all] = [Math.min(first + 1, found.length), first + shown.length, found.length];
      const [low, high, count] = [from, to, all].map((number) => number.toLocaleString("en"));
      pages.querySelector("span").textContent = `rows ${low}–${high} of ${count}`;
      // not disabled, which would drop the focus
      const [previous, next] = pages.querySelectorAll("button");
      previous.setAttribute("aria-disabled", first === 0);
      next.setAttribute("aria-disabled", to >= all);
    };

    const search = () => {
      const words = tools ? tools.querySelector("input").value.toLowerCase().split(/\s+/) : [];
      found = rows.filter((row) => words.every((word) => row.text.includes(word)));
      first = 0;
      show();
      fit();
    };

    heads.forEach((head, index) => {
      const button = element("button", "", ...head.childNodes);
      button.type = "button";
      head.append(button);
      button.addEventListener("click", () => {
        const sign = head.ariaSort === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        rows.sort((a, b) => compare(a.keys[index], b.keys[index], sign));
        search();
        region.scrollTop = 0;
      });
    });

    if (tools) {
      tools.querySelector("input").addEventListener("input", search);
      tools.hidden = false;
    }
    if (pages) {
      const turn = (by) => {
        if (first + by < 0 || first + by >= found.length) return;
        first += by;
        show();
        fit();
        region.scrollTop = 0;
      };
      const [previous, next] = pages.querySelectorAll("button");
      previous.addEventListener("click", () => turn(-PAGE));
      next.addEventListener("click", () => turn(PAGE));
      pages.hidden = false;
      show();
      // on paper there are no pages to turn
      addEventListener("beforeprint", () => ([size, first] = [Infinity, 0]) && show());
      addEventListener("afterprint", () => (size = PAGE) && show());
    }
  };

  // what is folded away is not on paper, either; it is folded again after
  const unfoldOnPaper = () => {
    let opened = [];
    addEventListener("beforeprint", () => {
      opened = [...document.querySelectorAll("details:not([open])")];
      opened.forEach((each) => (each.open = true));
    });
    addEventListener("afterprint", () => opened.forEach((each) => (each.open = false)));
  };

  // a table that is wider than the page folds its words, then its numbers, too; what is wider all the same says that it
  // scrolls (page.css)
  const fit = () => {
    const wider = (box) => box.scrollWidth > box.clientWidth + 1;
    let boxes = [...document.querySelectorAll(".scroll, .card")];
    boxes.forEach((box) => box.classList.remove("folded", "narrow", "scrolls"));
    for (const name of ["folded", "narrow", "scrolls"]) {
      boxes = boxes.filter(wider); // all are measured before any changes
      boxes.forEach((box) => box.classList.add(name));
    }
  };
  const fitting = () => {
    fit();
    addEventListener("resize", fit);
    addEventListener("load", fit); // pictures have their width by then
    document.addEventListener("toggle", fit, true);
  };

  document.addEventListener("DOMContentLoaded", () => {
    themeButton();
    unfoldOnPaper();
    document.querySelectorAll("button.copy").forEach(copyButton);
    document.querySelectorAll(".table").forEach(enhance);
    fitting();
  });
})();
