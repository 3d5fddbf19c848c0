"""A browser by the W3C WebDriver protocol, with nothing but the standard library."""

import base64
import json
import re
import subprocess
import time
import urllib.error
import urllib.request

# The key of an element in the protocol's JSON.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
PATIENCE_SECONDS = 20
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
]


class Element:
    def __init__(self, browser, identity: str):
        self._browser = browser
        self._path = f"/element/{identity}"
        self.reference = {ELEMENT: identity}

    def click(self):
        self._browser.call("POST", f"{self._path}/click", {})

    def type(self, text: str):
        self._browser.call("POST", f"{self._path}/value", {"text": text})

    def clear(self):
        self._browser.call("POST", f"{self._path}/clear", {})

    @property
    def text(self) -> str:
        return self._browser.call("GET", f"{self._path}/text")

    def attribute(self, name: str):
        return self._browser.call("GET", f"{self._path}/attribute/{name}")


class Browser:
    """A headless Chromium; use it with `with`."""

    def __enter__(self):
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                self._base = f"http://127.0.0.1:{found[1]}"
                break
        else:
            raise RuntimeError("chromedriver does not start")
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": CHROMIUM_ARGUMENTS}}
        session = self._request("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._base += f"/session/{session['sessionId']}"
        return self

    def __exit__(self, *_):
        try:
            self.call("DELETE", "", None)
        finally:
            self._driver.terminate()
            self._driver.wait()

    def open(self, url: str):
        self.call("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        return self.call("GET", "/url")

    def find(self, css: str) -> Element:
        """The first element that matches, once there is one."""
        return self._find("css selector", css)

    def find_link(self, text: str) -> Element:
        return self._find("partial link text", text)

    def wait_for(self, role: str, words: str) -> Element:
        """The element of this ARIA role once it says these words: the page before may have one of its own."""
        return self._find("xpath", f"//*[@role='{role}'][contains(., '{words}')]")

    def wait_for_heading(self, words: str) -> Element:
        return self._find("xpath", f"//h1[contains(., '{words}')]")

    def enter_frame(self, css: str):
        self.call("POST", "/frame", {"id": self.find(css).reference})

    def leave_frame(self):
        self.call("POST", "/frame", {"id": None})

    def resize(self, width: int, height: int, is_phone: bool):
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": is_phone},
        )

    def prefer(self, color_scheme: str):
        feature = {"name": "prefers-color-scheme", "value": color_scheme}
        self._devtools("Emulation.setEmulatedMedia", {"features": [feature]})

    def content_width(self) -> float:
        """Width that the page takes, in CSS pixels: more than the window's means scrolling sideways."""
        return self._devtools("Page.getLayoutMetrics", {})["cssContentSize"]["width"]

    def screenshot(self, path):
        shot = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))

    def call(self, method: str, path: str, body=None):
        return self._request(method, path, body)

    def _find(self, strategy: str, value: str) -> Element:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                found = self.call("POST", "/element", {"using": strategy, "value": value})
                return Element(self, found[ELEMENT])
            except LookupError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _devtools(self, command: str, parameters: dict):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _request(self, method: str, path: str, body):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            problem = json.load(error)["value"]
            kind = LookupError if problem["error"] == "no such element" else RuntimeError
            raise kind(f"{method} {path}: {problem['error']}: {problem['message']}") from None
