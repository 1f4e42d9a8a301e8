"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  const list = byId("rows");
  if (!list) return;
  const PAGE = 8;
  const rows = JSON.parse(byId("data").textContent);
  for (const row of rows) row.text = [row.caption, row.id, row.reason, ...row.tags].join("\n").toLowerCase();
  const known = [...new Set(rows.flatMap((row) => row.tags))].sort();
  byId("tags").append(...known.map((tag) => new Option(tag, tag)));

  const query = byId("query"), tagBox = byId("tag"), status = byId("status"), sound = byId("sound");
  const chosen = new Set();
  let matching = [], shown = 0;

  const tagButton = (tag) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "tag";
    button.textContent = tag;
    button.setAttribute("aria-pressed", String(chosen.has(tag)));
    button.addEventListener("click", () => toggle(tag));
    return button;
  };

  const media = (row) => {
    const fragment = document.createDocumentFragment();
    if (row.media === null) {
      const none = document.createElement("p");
      none.className = "none";
      none.textContent = row.status === "accepted" ? "Sound left out of the page; it is in the run's shards." : "No sound: the row was " + row.status + ".";
      fragment.append(none);
      return fragment;
    }
    const image = document.createElement("img");
    image.alt = "Spectrogram: time to the right, frequency upwards";
    image.src = "data:image/png;base64," + byId("png-" + row.media).textContent;
    const audio = document.createElement("audio");
    audio.controls = true;
    audio.preload = "none";
    audio.setAttribute("aria-label", "Audio of " + row.id);
    audio.src = "data:audio/mpeg;base64," + byId("mp3-" + row.media).textContent;
    audio.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    });
    fragment.append(image, audio);
    return fragment;
  };

  const element = (row) => {
    const item = byId("row").content.firstElementChild.cloneNode(true);
    item.classList.add(row.status);
    item.querySelector(".sound").append(media(row));
    item.querySelector(".caption").textContent = row.caption || "(no caption)";
    for (const tag of row.tags) {
      const entry = document.createElement("li");
      entry.append(tagButton(tag));
      item.querySelector(".tags").append(entry);
    }
    const facts = [row.status];
    if (row.reason) facts.push(row.reason);
    if (row.score !== null) facts.push("score " + row.score.toFixed(3));
    if (row.pair) facts.push("pair " + row.pair);
    facts.push(row.id);
    item.querySelector(".facts").textContent = facts.join(" · ");
    return item;
  };

  const showMore = () => {
    const next = matching.slice(shown, shown + PAGE);
    list.append(...next.map(element));
    shown += next.length;
    byId("more").hidden = shown >= matching.length;
  };

  const update = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    matching = rows.filter((row) =>
      words.every((word) => row.text.includes(word)) &&
      [...chosen].every((tag) => row.tags.includes(tag)) &&
      (!status.value || row.status === status.value) &&
      (!sound.checked || row.media !== null));
    list.replaceChildren();
    shown = 0;
    showMore();
    byId("chosen").replaceChildren(...[...chosen].map(tagButton));
    byId("found").textContent = matching.length + " of " + rows.length + " rows";
  };

  const toggle = (tag) => {
    if (!chosen.delete(tag)) chosen.add(tag);
    update();
    const again = [...document.querySelectorAll(".tag")].find((button) => button.textContent === tag);
    if (again) again.focus({ preventScroll: true });
  };

  const clear = () => {
    query.value = tagBox.value = status.value = "";
    sound.checked = false;
    chosen.clear();
    update();
  };

  let waiting = 0;
  query.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 80);
  });
  tagBox.addEventListener("input", () => {
    const tag = tagBox.value.trim();
    if (!known.includes(tag)) return;
    tagBox.value = "";
    chosen.add(tag);
    update();
  });
  status.addEventListener("change", update);
  sound.addEventListener("change", update);
  byId("clear").addEventListener("click", clear);
  byId("more").addEventListener("click", () => {
    const first = shown;
    showMore();
    const target = list.children[first] && list.children[first].querySelector("audio, button");
    if (target) target.focus({ preventScroll: true });
  });
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (event.key === "/" && !typing) {
      event.preventDefault();
      query.focus();
    } else if (event.key === "Escape") {
      clear();
    }
  });
  update();
})();
