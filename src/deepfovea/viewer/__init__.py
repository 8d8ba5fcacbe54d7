"""A page in the browser on which the pointer is the gaze, and the small server behind it.

request.py   the current wishes of one viewer as a value, and the messages that change it
player.py    one video and the current position in it
batcher.py   collects frames for networks that take several at a time
live.py      the live eye tracker that all pages follow
session.py   one viewer: request -> frame -> samples -> reconstruction -> message, in a thread
server.py    the page's files, the WebSocket and the upload
page.py      the page without a server: a folder whose network runs in the visitor's browser
scene.py     the drawn video that such a page shows
static/      the page: HTML, CSS and JavaScript modules, served unchanged;
             page/ replaces the server on a page without one
"""
