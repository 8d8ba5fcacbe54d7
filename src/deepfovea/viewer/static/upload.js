// A video that is dropped or chosen, streamed to the server.

export function upload(file, token, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not say how far it is
    request.open("POST", `/upload?token=${encodeURIComponent(token)}`);
    request.responseType = "json";
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onload = () => {
      if (request.status === 200) resolve(request.response.id);
      else reject(new Error(request.response?.error ?? `the server answered ${request.status}`));
    };
    request.onerror = () => reject(new Error("the upload was cut short"));
    request.send(file);
  });
}

// Calls take(file) for what is dropped anywhere; `curtain` is shown while something hovers.
export function acceptDrops(curtain, take) {
  let depth = 0; // the events of elements inside each other
  const hovering = (event) => [...event.dataTransfer.types].includes("Files");
  const shift = (by) => {
    depth = by ? depth + by : 0;
    curtain.hidden = depth <= 0;
  };
  addEventListener("dragenter", (event) => hovering(event) && shift(1));
  addEventListener("dragleave", (event) => hovering(event) && shift(-1));
  addEventListener("dragover", (event) => hovering(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hovering(event)) return;
    event.preventDefault();
    shift(0);
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}
