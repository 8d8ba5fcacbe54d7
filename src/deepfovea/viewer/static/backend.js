// The connection to the server. (On a page without a server, page/backend.js replaces it.)
//
// Over the WebSocket the page sends JSON and receives JSON and frames. A frame is one message: the
// length of its header (uint32, little endian), the header as JSON, then the pictures in order.

import { upload } from "./upload.js";

const RETRY_MS = 2000;

export class Backend {
  // handlers: open(), text(object), frame(header, {view: ImageBitmap}), closed(reason)
  constructor(handlers) {
    this.handlers = handlers;
    this.chain = Promise.resolve();
    this.refused = false;
    this.connect();
  }

  connect() {
    const url = new URL("watch", document.baseURI);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => {
      if (typeof event.data === "string") {
        const message = JSON.parse(event.data);
        this.refused ||= Boolean(message.full);
        this.token = message.hello?.token ?? this.token;
        this.handlers.text(message);
      } else {
        // Decoded one after the other, so that frames arrive in order.
        this.chain = this.chain.then(() => this.decode(event.data)).catch(console.error);
      }
    };
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.handlers.open();
    };
    socket.onclose = async (event) => {
      const reason = opened ? event.reason : await reasonOfRefusal();
      this.handlers.closed(reason);
      // After a refusal it does not try again by itself.
      if (!this.refused && event.code !== 1008) setTimeout(() => this.connect(), RETRY_MS);
    };
    this.socket = socket;
  }

  async decode(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    let at = 4 + length;
    const pictures = {};
    await Promise.all(header.pictures.map(async ([view, type, size]) => {
      const blob = new Blob([new Uint8Array(buffer, at, size)], { type });
      at += size;
      pictures[view] = await createImageBitmap(blob);
    }));
    this.handlers.frame(header, pictures);
  }

  // Upload a video to the server, which then shows it; returns its identifier.
  addVideo(file, onProgress) {
    return upload(file, this.token, onProgress);
  }

  send(changes) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(changes));
  }
}

// A browser hides why a WebSocket was refused, but another request gets the reason.
async function reasonOfRefusal() {
  try {
    const answer = await fetch("watch", { method: "POST" });
    return answer.status === 403 ? await answer.text() : "";
  } catch {
    return ""; // no server there
  }
}
