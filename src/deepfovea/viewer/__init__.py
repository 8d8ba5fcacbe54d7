"""A page in the browser where the pointer is the gaze, and the small server behind it.

request.py   what one viewer wants now, as a value, and the messages that change it
player.py    the position in one video
batcher.py   gathers frames for networks that take several at a time
live.py      the live eye tracker that all pages follow
session.py   one viewer: request -> frame -> samples -> reconstruction -> message, in a thread
server.py    the page, the WebSocket and the upload
static/      the page: HTML, CSS and JavaScript modules as they stand
"""
