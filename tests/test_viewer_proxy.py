"""Claims about the viewer behind a reverse proxy: nginx with a path prefix, as labs set it up."""

import shutil
import socket
import subprocess

import pytest
from noise import LEFT, PATIENCE, RIGHT, make_noise, wait_until
from test_viewer_browser import choose, fovea_is_at, look, small_fovea, wait_for_frames
from viewing import CHROMIUM, chromium, running_viewer

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
pytest.importorskip("playwright", reason="playwright is not installed (it is in the extra dev)")
pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="no nginx (Debian: apt-get install nginx-light)"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)"),
    pytest.mark.flaky(reruns=2),  # a browser may be slow while other tests run
]

CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /user/me/viewer/ {{
      proxy_pass {address};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
    }}
    location = /astray {{
      proxy_pass {address};
    }}
  }}
}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_noise(tmp_path_factory.mktemp("proxy"))


@pytest.fixture(scope="module")
def viewer(folder):
    """A server that accepts one more host name."""
    words = (folder / "noise.mp4", "--model", folder / "tiny.safetensors", "--engine", "torch")
    with running_viewer(*words, "--allowed-host", "lab.localhost") as address:
        yield address


@pytest.fixture(scope="module")
def port(folder, viewer):
    """The port of nginx, which strips the prefix and sets the Host to its upstream's."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "nginx.conf"
    file.write_text(
        CONFIGURATION.format(folder=folder, port=port, address=viewer), encoding="utf-8"
    )
    process = subprocess.Popen([NGINX, "-e", f"{folder}/error.log", "-c", str(file)])
    try:
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def test_page_socket_and_pictures_work_below_a_prefix(browser, port):
    page = browser.new_page(viewport={"width": 1000, "height": 420}, reduced_motion="reduce")
    page.set_default_timeout(1e3 * PATIENCE)
    paths = set()
    page.on("request", lambda request: paths.add(request.url))
    prefix = f"http://lab.localhost:{port}/user/me/viewer/"
    page.goto(prefix)
    wait_for_frames(page)
    assert {url for url in paths if not url.startswith((prefix, "blob:", "data:"))} == set()
    small_fovea(page)
    choose(page, "samples")
    look(page, LEFT)
    fovea_is_at(page, LEFT, away_from=RIGHT)
    page.fill("#position", "1")
    wait_until(lambda: page.inner_text("#clock").startswith("0:01.0"))
    page.reload()
    wait_for_frames(page)
    wait_until(lambda: page.input_value("#position") == "1")  # it returns to the same place
    page.close()


def test_without_the_last_slash_the_page_says_what_it_lacks(browser, port):
    page = browser.new_page()
    page.goto(f"http://lab.localhost:{port}/astray")
    page.get_by_text("Does its address need a slash at the end").wait_for()
    page.goto(f"http://lab.localhost:{port}/user/me/viewer")  # which nginx mends by itself
    wait_for_frames(page)
    assert not page.get_by_text("Does its address need a slash at the end").is_visible()
    page.close()


def test_a_name_that_was_not_allowed_is_refused_and_the_page_says_what_to_do(browser, port):
    page = browser.new_page()
    page.goto(f"http://other.localhost:{port}/user/me/viewer/")
    notice = page.locator("#notice")
    notice.filter(has_text="--allowed-host other.localhost").wait_for(timeout=1e3 * PATIENCE)
    page.close()
