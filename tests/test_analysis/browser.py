"""A headless Chromium, over the pipe of its DevTools protocol."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
OPTIONS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
    '--hide-scrollbars',
)
# Where the browser expects the two ends of its pipe.
_READS, _WRITES = 3, 4


def find_chromium() -> str | None:
    """The path of a Chromium, None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A browser with one page.

    Args:
        program (str): The path of a Chromium.
        profile (Path): An empty folder for what it writes.
    """

    def __init__(self, program: str, profile: Path) -> None:
        inner_read, self._output = map(_high, os.pipe())
        self._input, inner_write = map(_high, os.pipe())

        def connect():
            os.dup2(inner_read, _READS)
            os.dup2(inner_write, _WRITES)

        self._process = subprocess.Popen(
            [
                program,
                *OPTIONS,
                '--remote-debugging-pipe',
                f'--user-data-dir={profile}',
                'about:blank',
            ],
            preexec_fn=connect,
            pass_fds=(_READS, _WRITES),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(inner_read)
        os.close(inner_write)
        self._buffer, self._number, self._session = b'', 0, None
        self.requests = []
        targets = self.call('Target.getTargets')['targetInfos']
        (target,) = [t['targetId'] for t in targets if t['type'] == 'page']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)[
            'sessionId'
        ]
        self.call('Page.enable')
        self.call('Network.enable')

    def call(self, method: str, **params: Any) -> dict:
        """Call a method of the protocol and wait for its result."""
        self._number += 1
        message = dict(id=self._number, method=method, params=params)
        if self._session:
            message['sessionId'] = self._session
        os.write(self._output, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._read()
            if answer.get('id') == self._number:
                assert 'error' not in answer, answer
                return answer['result']

    def _read(self, wanted: str = '') -> dict:
        while b'\0' not in self._buffer:
            part = os.read(self._input, 1 << 16)
            assert part, 'the browser has closed its pipe'
            self._buffer += part
        line, self._buffer = self._buffer.split(b'\0', 1)
        message = json.loads(line)
        if message.get('method') == 'Network.requestWillBeSent':
            self.requests.append(message['params']['request']['url'])
        return message

    def open(self, path: Path, width: int, scheme: str) -> None:
        """Open a page, as wide as a screen and light or dark."""
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call(
            'Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value=scheme)]
        )
        self.requests = []
        self.call('Page.navigate', url=path.as_uri())
        while self._read().get('method') != 'Page.loadEventFired':
            pass

    def run(self, script: str) -> Any:
        """What an expression of JavaScript is on the page."""
        answer = self.call('Runtime.evaluate', expression=script, returnByValue=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def screenshot(self, path: Path) -> Path:
        """Write the whole page as a PNG file."""
        picture = self.call('Page.captureScreenshot', captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture['data']))
        return path

    def close(self) -> None:
        """End the browser."""
        os.close(self._output)
        os.close(self._input)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _high(fd: int) -> int:
    """The same file under a number that is not one of the pipe's ends."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return high
