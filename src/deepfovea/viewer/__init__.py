"""A page in the browser where the pointer is the gaze, and the small server behind it.

request.py   what one viewer wants now, as a value; the only reader of what a client says
player.py    the position in one video
batcher.py   frames in, frames out, for networks that take several at a time too
session.py   one viewer: wish -> frame -> samples -> reconstruction -> message, in a thread
server.py    the page, the WebSocket and the upload
static/      the page: HTML, CSS and JavaScript modules as they stand
"""
