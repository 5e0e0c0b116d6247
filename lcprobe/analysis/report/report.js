// The page's own script. Charts become interactive when they come into view (Vega-Lite draws them: see the bundle
// before this); models and tasks can be chosen; tables can be sorted and searched. Without it the page is whole.
"use strict";

const chosen = { models: null, tasks: null }; // null: all
const offered = new Set(); // models that can be chosen
const views = [];
const tables = [];
const NARROW = 640; // CSS pixels of a phone, as in the style sheet

// Charts ------------------------------------------------------------------------------------------------------------

const runs = JSON.parse(document.getElementById("choices").dataset.models); // models by the names of their runs
const THEME = { tooltip: { theme: "custom", disableDefaultStyle: true }, defaultStyle: false };

function specOf(figure) {
  return JSON.parse(figure.querySelector("script.spec").textContent);
}

function shownIn(spec) {
  return (spec.params || []).find((p) => p.name === "shown");
}

async function draw(figure) {
  const place = figure.querySelector(".chart");
  const spec = specOf(figure);
  if (spec.columns > 1 && innerWidth < NARROW) spec.columns = 1; // panels below each other: no scrolling sideways
  const parameter = shownIn(spec);
  const all = parameter ? parameter.value : [];
  if (parameter) parameter.value = kept(all);
  const fresh = document.createElement("div");
  try {
    const options = { mode: "vega-lite", ast: true, actions: false, renderer: "svg", ...THEME };
    const { view } = await vegaEmbed(fresh, spec, options);
    place.replaceChildren(fresh);
    if (parameter) {
      const entry = { view, all, drawn: parameter.value };
      views.push(entry);
      refresh(entry); // the choice may have changed meanwhile
    }
    figure.dataset.drawn = "yes";
  } catch (error) {
    figure.dataset.drawn = "no"; // the picture that was there stays
    console.error(`${figure.id}: ${error}`);
  }
}

function kept(all) {
  return chosen.models === null ? all : all.filter((name) => chosen.models.has(name));
}

function refresh(entry) {
  const wanted = kept(entry.all);
  if (wanted.join("\n") === entry.drawn.join("\n")) return;
  entry.drawn = wanted;
  entry.view.signal("shown", wanted).runAsync();
}

function drawWhenSeen() {
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((e) => e.isIntersecting)) {
        observer.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "200px" },
  );
  for (const figure of document.querySelectorAll("figure:has(script.spec)")) observer.observe(figure);
}

// Choice of models and tasks ------------------------------------------------------------------------------------------

function button(text, pressed, onClick) {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.setAttribute("aria-pressed", String(pressed));
  element.addEventListener("click", onClick);
  return element;
}

const FILTERED_FROM = 13; // names that have a box to look for them

function choice(place, title, names, key, apply) {
  if (names.length < 2) return;
  const group = document.createElement("div");
  group.className = "choice";
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", title);
  const label = document.createElement("span");
  label.textContent = title;
  group.append(label);
  const press = () => buttons.forEach((b, i) => {
    b.setAttribute("aria-pressed", String(chosen[key] === null || chosen[key].has(names[i])));
  });
  const buttons = names.map((name) =>
    button(name, true, () => {
      // the first choice shows that one alone; then each click adds or removes
      const set = chosen[key] === null ? new Set([name]) : new Set(chosen[key]);
      if (chosen[key] !== null) set.has(name) ? set.delete(name) : set.add(name);
      chosen[key] = set.size === 0 || set.size === names.length ? null : set;
      press();
      apply();
    }),
  );
  if (names.length >= FILTERED_FROM) {
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "find";
    input.setAttribute("aria-label", `Find in ${title.toLowerCase()}`);
    input.addEventListener("input", () => {
      const text = input.value.toLowerCase();
      buttons.forEach((b, i) => (b.hidden = !names[i].toLowerCase().includes(text)));
    });
    const all = document.createElement("button");
    all.type = "button";
    all.className = "all";
    all.textContent = "all";
    all.addEventListener("click", () => {
      chosen[key] = null;
      press();
      apply();
    });
    group.append(input, all);
  }
  const list = document.createElement("div");
  list.className = "names";
  list.append(...buttons);
  group.append(list);
  place.append(group);
}

function unique(values) {
  return [...new Set(values)];
}

function offerChoices() {
  const place = document.getElementById("choices");
  if (place === null) return;
  const figures = [...document.querySelectorAll("figure:has(script.spec)")];
  const models = unique(figures.flatMap((figure) => (shownIn(specOf(figure)) || { value: [] }).value));
  const tasks = unique(figures.filter((f) => f.dataset.task).map((figure) => figure.dataset.task));
  models.forEach((name) => offered.add(name));
  choice(place, "Models", models, "models", () => {
    views.forEach(refresh);
    for (const element of document.querySelectorAll("[data-model]:not(tr)")) {
      element.hidden = !isChosenModel(element.dataset.model);
    }
    tables.forEach((show) => show());
  });
  choice(place, "Tasks", tasks, "tasks", () => {
    for (const element of document.querySelectorAll("[data-task]")) {
      const task = element.dataset.task;
      element.hidden = !isChosenTask(task);
    }
    tables.forEach((show) => show());
  });
  place.hidden = place.children.length === 0;
  // links lead below the bar, however high it is
  const measure = () => document.body.style.setProperty("--bar", `${place.offsetHeight}px`);
  measure(); // at once: a page that is opened at a place scrolls before an observer is asked
  new ResizeObserver(measure).observe(place);
}

function isChosenTask(task) {
  return task === "" || chosen.tasks === null || chosen.tasks.has(task);
}

// Of a run, a model, an architecture, or two of them. A pair stands if both are chosen, or one alone is.
function isChosenModel(text) {
  if (chosen.models === null) return true;
  const names = Object.hasOwn(runs, text) ? [text] : text.split(" − ");
  const known = names
    .map((name) => (Object.hasOwn(runs, name) ? runs[name] : [name]).filter((model) => offered.has(model)))
    .filter((models) => models.length > 0);
  const wanted = known.filter((models) => models.some((model) => chosen.models.has(model)));
  return wanted.length === known.length || (wanted.length > 0 && chosen.models.size === 1);
}

// Tables --------------------------------------------------------------------------------------------------------------

const SEARCHED_FROM = 8; // rows

function sortKey(text) {
  const found = text.replaceAll(",", "").replace("−", "-").match(/^\D{0,2}?(-?\d+(\.\d+)?(e[-+]?\d+)?)/);
  return found ? Number(found[1]) : null;
}

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const name = document.createElement("span"); // printed on every page of the table, as a button is not
    name.setAttribute("role", "button");
    name.tabIndex = 0;
    name.append(...header.childNodes);
    header.append(name);
    name.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault(); // the page does not scroll
      name.click();
    });
    name.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[header.ariaSort || "none"];
      headers.forEach((h) => h.removeAttribute("aria-sort"));
      if (next !== "none") header.setAttribute("aria-sort", next);
      body.append(...ordered(original, column, next));
    });
  });
}

function ordered(rows, column, direction) {
  if (direction === "none") return rows;
  const keyed = rows.map((row) => ({ row, text: row.cells[column].textContent.trim() }));
  const sign = direction === "ascending" ? 1 : -1;
  keyed.sort((a, b) => {
    if (a.text === "" || b.text === "") return (a.text === "") - (b.text === ""); // empty cells last
    const [x, y] = [sortKey(a.text), sortKey(b.text)];
    if (x !== null && y !== null && x !== y) return sign * (x - y);
    if ((x === null) !== (y === null)) return x === null ? 1 : -1;
    return sign * a.text.localeCompare(b.text, "en", { numeric: true });
  });
  return keyed.map(({ row }) => row);
}

const OF_MODELS = ["model", "group", "architecture"]; // columns

// Rows of the chosen models and tasks that have all words.
function filtered(scroll, table) {
  const rows = [...table.tBodies[0].rows];
  const columns = [...table.tHead.rows[0].cells].map((header) => header.textContent.trim());
  const [model, task] = [columns.findIndex((name) => OF_MODELS.includes(name)), columns.indexOf("task")];
  const search = rows.length < SEARCHED_FROM ? null : searchBar(scroll, () => show());
  const show = () => {
    const words = search === null ? [] : search.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const row of rows) {
      const text = words.length ? row.textContent.toLowerCase() : "";
      row.hidden =
        (model >= 0 && !isChosenModel(row.dataset.model ?? row.cells[model].textContent)) ||
        (task >= 0 && !isChosenTask(row.cells[task].textContent)) ||
        !words.every((word) => text.includes(word));
      n += row.hidden ? 0 : 1;
    }
    if (search !== null) search.count.textContent = n < rows.length ? `${n} of ${rows.length} rows` : `${n} rows`;
  };
  show();
  tables.push(show);
}

function searchBar(scroll, onInput) {
  const bar = document.createElement("p");
  bar.className = "search";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "search: all words in a row";
  input.setAttribute("aria-label", `Search in ${scroll.getAttribute("aria-label") || "the table"}`);
  const count = document.createElement("output");
  input.addEventListener("input", onInput);
  bar.append(input, count);
  scroll.before(bar);
  return { input, count };
}

// Paper has no folds -------------------------------------------------------------------------------------------------

function printWhole() {
  let opened = [];
  window.addEventListener("beforeprint", () => {
    const brief = document.body.classList.contains("brief");
    opened = brief ? [] : [...document.querySelectorAll("details:not([open])")];
    opened.forEach((d) => (d.open = true));
  });
  window.addEventListener("afterprint", () => {
    opened.forEach((d) => (d.open = false));
    opened = [];
    document.body.classList.remove("brief");
  });
  const brief = button("print: answer and pictures", false, () => {
    document.body.classList.add("brief"); // the style sheet leaves episodes and evidence out
    window.print();
  });
  brief.removeAttribute("aria-pressed");
  document.querySelector("nav").append(brief);
}

offerChoices();
drawWhenSeen();
for (const scroll of document.querySelectorAll(".scroll")) {
  const table = scroll.querySelector("table");
  if (table === null || table.tHead === null || table.tBodies.length === 0) continue;
  sortable(table);
  filtered(scroll, table);
}
printWhole();
if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
