"""A small device that speaks the protocol of Pupil Labs' Companion app: HTTP status, gaze by RTSP
(RTP and RTCP over UDP), time echo. Its clock is its own."""

import asyncio
import json
import re
import struct
import threading
import time

RTP_CLOCK = 90_000  # Hz
NTP_EPOCH = 2_208_988_800  # s from 1900 to 1970


class PupilDevice:
    """Serves on 127.0.0.1 from a thread until closed.

    ``clock_offset``: seconds that its clock is ahead of this process's ``perf_counter``.
    ``payloads`` are sent one after the other, again and again, ``rate_hz`` times a second.
    """

    def __init__(self, payloads, clock_offset=1.7e9, port=0, rate_hz=200):
        self.payloads, self.offset, self.rate = payloads, clock_offset, rate_hz
        self.port, self.sent = port, {}  # payload's number -> when, by perf_counter
        self._ready, self._stopped = threading.Event(), None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(5)

    def close(self):
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(5)

    def now(self):
        return time.perf_counter() + self.offset

    async def _serve(self):
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._writers = []
        servers = [
            await asyncio.start_server(self._http, "127.0.0.1", self.port),
            await asyncio.start_server(self._rtsp, "127.0.0.1", 0),
            await asyncio.start_server(self._echo, "127.0.0.1", 0),
        ]
        self.port, self._rtsp_port, self._echo_port = (
            server.sockets[0].getsockname()[1] for server in servers
        )
        self._ready.set()
        await self._stopped.wait()
        for server in servers:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _http(self, reader, writer):
        self._writers.append(writer)
        request = await reader.readuntil(b"\r\n\r\n")
        assert request.startswith(b"GET /api/status")
        phone = {
            "battery_level": 90, "battery_state": "OK", "device_id": "1", "device_name": "test",
            "ip": "127.0.0.1", "memory": 1, "memory_state": "OK",
            "time_echo_port": self._echo_port,
        }  # fmt: skip
        gaze = {
            "sensor": "gaze", "conn_type": "DIRECT", "connected": True, "ip": "127.0.0.1",
            "port": self._rtsp_port, "params": "camera=gaze", "protocol": "rtsp",
        }  # fmt: skip
        result = [
            {"model": "Phone", "data": phone},
            {"model": "Hardware", "data": {"version": "2.0", "module_serial": "1"}},
            {"model": "Sensor", "data": gaze},
        ]
        body = json.dumps({"message": "Success", "result": result}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        writer.write(head.encode() + b"\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async def _echo(self, reader, writer):
        self._writers.append(writer)
        while sent := await reader.read(8):
            writer.write(sent + struct.pack("!Q", int(1e3 * self.now())))

    async def _rtsp(self, reader, writer):
        self._writers.append(writer)
        sdp = (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=gaze\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
            f"a=rtpmap:96 com.pupillabs.gaze1/{RTP_CLOCK}\r\na=control:trackID=0\r\n"
        )
        client = None
        while True:
            try:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                return  # the client is gone
            method, cseq = request.split()[0], re.search(r"(?i)cseq: *(\d+)", request)[1]
            head, body = ["RTSP/1.0 200 OK", f"CSeq: {cseq}", "Session: 1;timeout=60"], ""
            if method == "OPTIONS":
                head.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                body = sdp
                head += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif method == "SETUP":
                client = [int(p) for p in re.search(r"client_port=(\d+)-(\d+)", request).groups()]
                head.append(f"Transport: RTP/AVP;unicast;client_port={client[0]}-{client[1]}")
            writer.write("\r\n".join([*head, "", body]).encode())
            if method == "PLAY":
                self._stream = asyncio.ensure_future(self._send_gaze(*client))

    async def _send_gaze(self, rtp_port, rtcp_port):
        transport, _ = await self._loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        number = 0
        while True:
            now = self.now()
            stamp = int(now * RTP_CLOCK) % 2**32
            if number % 100 == 0:
                ntp = now + NTP_EPOCH
                report = struct.pack(
                    "!BBHIIIIII", 0x80, 200, 6, 7, int(ntp), int(ntp % 1 * 2**32), stamp, 0, 0
                )
                transport.sendto(report, ("127.0.0.1", rtcp_port))
                await asyncio.sleep(0.002)
            payload = self.payloads[number % len(self.payloads)]
            head = struct.pack("!BBHII", 0x80, 96, number % 2**16, stamp, 7)
            self.sent[number % len(self.payloads)] = now - self.offset
            transport.sendto(head + payload, ("127.0.0.1", rtp_port))
            number += 1
            await asyncio.sleep(1 / self.rate)
