"use strict";
for (const section of document.querySelectorAll("section")) {
  const current = section.querySelector(".current");
  if (!current) continue;  // a source that failed
  const video = section.querySelector("video");
  const duration = Number(section.dataset.duration);
  const offset = Number(section.dataset.offset);  // of the first picture in the file; times count from it
  const slack = 0.001;  // players round the time that they are set to
  const segments = [...section.querySelectorAll("[data-start]")];

  const show = (time) => {
    section.style.setProperty("--at", Math.min(time / duration, 1));
    const told = [];
    for (const segment of segments) {
      const now = time >= Number(segment.dataset.start) - slack && time < Number(segment.dataset.stop) - slack;
      segment.setAttribute("aria-current", now);
      if (now && segment.dataset.said) told.push(segment.dataset.said);
    }
    current.replaceChildren(...told.map((text) => Object.assign(document.createElement("b"), { textContent: text })));
  };
  const seek = (time) => {
    if (video) video.currentTime = time + offset;
    show(time);
  };
  for (const segment of segments) {
    segment.addEventListener("click", (event) => {
      event.stopPropagation();
      seek(Number(segment.dataset.start));
    });
  }
  for (const scale of section.querySelectorAll(".track, .chart")) {
    scale.addEventListener("click", (event) => {
      const box = scale.getBoundingClientRect();
      seek(((event.clientX - box.left) / box.width) * duration);
    });
  }
  if (video) {
    for (const name of ["timeupdate", "seeked"]) video.addEventListener(name, () => show(Math.max(0, video.currentTime - offset)));
    const failed = () => { section.querySelector(".unplayable").hidden = false; };
    video.addEventListener("error", failed);
    if (video.error) failed();
  }
  show(0);
}
