"""A headless Chromium, told what to do through its DevTools protocol.

The protocol goes over a pair of pipes, so there is no port to find and nothing to install beside
the browser.  The browser reaches this machine alone: whatever a page loads from elsewhere fails.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60


def find():
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """One tab. ``errors`` has every error that the console would show."""

    def __init__(self, program, profile):
        to_browser, our_writes = os.pipe()
        our_reads, from_browser = os.pipe()
        os.set_inheritable(to_browser, True)
        os.set_inheritable(from_browser, True)
        # The browser reads from descriptor 3 and writes to 4; bash moves ours there.
        arguments = [
            shutil.which("bash"), "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash",
            program, "--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}",
            "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--window-size=1400,1000",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank",
        ]  # fmt: skip
        self._log = (profile / "log").open("wb")
        self._process = subprocess.Popen(
            arguments, pass_fds=(to_browser, from_browser), stderr=self._log, stdout=self._log
        )
        os.close(to_browser)
        os.close(from_browser)
        self._write, self._read = our_writes, our_reads
        self._rest, self._number, self._session = b"", 0, None
        self.errors = []
        (tab,) = (
            target
            for target in self.ask("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        )
        attach = {"targetId": tab["targetId"], "flatten": True}
        self._session = self.ask("Target.attachToTarget", **attach)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._write)  # which ends it
        os.close(self._read)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def ask(self, method, **arguments):
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def evaluate(self, expression):
        """The value of a JavaScript expression on the page."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {_text(result['exceptionDetails'])}")
        return result["result"].get("value")

    def open(self, address):
        """Go to an address."""
        result = self.ask("Page.navigate", url=address)
        if "errorText" in result:
            raise RuntimeError(f"{address}: {result['errorText']}")

    def wait_for(self, expression):
        """Ask until the expression is true, and return its value."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            value = self.evaluate(expression)
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"not within {SECONDS} s: {expression}; errors: {self.errors}")

    def screenshot(self, path):
        """Save what is to be seen."""
        data = self.ask("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def _receive(self):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], SECONDS)
            piece = os.read(self._read, 1 << 16) if ready else b""
            if not piece:
                raise RuntimeError("Chromium ended, or does not answer")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(_text(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.errors.append(
                    str([a.get("value", a.get("description")) for a in params["args"]])
                )
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


def _text(details):
    return details.get("exception", {}).get("description") or details["text"]
