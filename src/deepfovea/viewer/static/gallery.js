// The videos to choose from: a radio button for each, with a picture where there is one.

function entry({ id, name, picture }) {
  const label = document.createElement("label");
  label.title = name;
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "video", value: id });
  const text = Object.assign(document.createElement("span"), { textContent: name });
  const image = Object.assign(document.createElement("img"), { alt: "", loading: "lazy" });
  image.addEventListener("error", () => image.removeAttribute("src"));
  if (picture) image.src = picture;
  label.append(input, image, text);
  return label;
}

export class Gallery {
  // element: where the videos are listed; onChoice(id): called when the visitor chooses one
  constructor(element, onChoice) {
    this.element = element;
    element.addEventListener("change", ({ target }) => onChoice(target.value));
  }

  // List these videos, { id, name, picture } each, picture being an address or missing.
  offer(videos) {
    this.offered = videos;
    this.list(videos);
  }

  // Mark a video as chosen. One that is not offered is listed in place of another such.
  choose({ id, name }) {
    if (!this.offered.some((video) => video.id === id)) this.list([...this.offered, { id, name }]);
    this.mark(id);
  }

  list(videos) {
    this.element.replaceChildren(...videos.map(entry));
    this.element.hidden = videos.length < 2;
  }

  mark(id) {
    for (const input of this.inputs) input.checked = input.value === id;
  }

  get inputs() { return [...this.element.querySelectorAll("input")]; }
}
