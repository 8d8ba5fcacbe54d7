"""A page in the browser where the pointer is the gaze, and the small server behind it.

request.py   what one viewer wants now, as a value, and the messages that change it
player.py    the position in one video
batcher.py   gathers frames for networks that take several at a time
live.py      the live eye tracker that all pages follow
session.py   one viewer: request -> frame -> samples -> reconstruction -> message, in a thread
server.py    the page, the WebSocket and the upload
page.py      the page without a server: a folder whose network runs in the visitor's browser
scene.py     the drawn video that it shows
static/      the page: HTML, CSS and JavaScript modules as they stand;
             page/ is what takes the place of the server
"""
