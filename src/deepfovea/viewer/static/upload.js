// Uploads a video that was dropped or chosen.

export function upload(file, token, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // as fetch does not report progress
    request.open("POST", `upload?token=${encodeURIComponent(token)}`);
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

// Calls onFile(file) for a file that is dropped on the page; shows `overlay` while one hovers.
export function acceptDrops(overlay, onFile) {
  let depth = 0; // number of nested elements that the file has entered
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  const count = (by) => {
    depth = by ? depth + by : 0;
    overlay.hidden = depth <= 0;
  };
  addEventListener("dragenter", (event) => hasFiles(event) && count(1));
  addEventListener("dragleave", (event) => hasFiles(event) && count(-1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    count(0);
    if (event.dataTransfer.files.length) onFile(event.dataTransfer.files[0]);
  });
}
