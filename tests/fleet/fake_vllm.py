"""A server that behaves like vLLM for a supervisor. It is run by its path, and uses the standard library only.

`POST /test/die`, `/test/freeze` (no more answers), `/test/hang` (healthy, but requests never end), `/test/stuck`
(the same, but its load shows no request), `/test/slow` (answers late) and `/test/sick` (`/health` answers 503) make it
misbehave; between `/test/busy` and `/test/idle` it generates for a request. The model `tardy` answers late from its
start, and `slow_stop` takes a second to end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL, PORT, KEY = sys.argv[1], int(sys.argv[2]), os.environ.get("ORCHESTRA_SERVER_KEY", "")
frozen = threading.Event()
hanging = threading.Event()
stuck = threading.Event()
sick = threading.Event()
busy = threading.Event()
tokens = 7
TARDY_SECONDS, SLOW_SECONDS = 0.7, 1.5
"""Less and more than the supervisor's `stall_timeout` in `fake_supervisor.py`."""
delay = TARDY_SECONDS if MODEL == "tardy" else 0.0
probes = 0
adapters: list[str] = []
refused: list[str] = []
thought: list[str] = []
running = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, value: Any, status: int = 200) -> None:
        body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        if (
            not KEY
            or self.path == "/health"
            or self.path.startswith("/test/")
            or self.headers.get("Authorization") == f"Bearer {KEY}"
        ):
            return True
        refused.append(self.path)
        self.close_connection = True  # the body is not read
        self.answer({"error": {"message": "this server wants the key of its fleet"}}, 401)
        return False

    def do_GET(self) -> None:
        global probes, tokens
        probes += self.path == "/health"
        time.sleep(3600 if frozen.is_set() else delay)
        match self.path:
            case "/health":
                self.answer("", 503 if sick.is_set() else 200)
            case "/version":
                self.answer({"version": "0.0-fake"})
            case "/metrics":
                requests = int(hanging.is_set()) + int(busy.is_set()) + running
                tokens += busy.is_set()
                cache = 'vllm:cache_config_info{block_size="128",engine="0",kv_cache_size_tokens="46592"} 1.0\n'
                self.answer(
                    f'{cache}vllm:num_requests_running{{engine="0"}} {requests}\n'
                    f'vllm:generation_tokens_total{{engine="0"}} {tokens}\n'
                )
            case "/v1/models":
                self.answer({"data": [{"id": name} for name in [MODEL, *adapters]]})

    def do_POST(self) -> None:
        global running, delay
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        match self.path:
            case "/test/die":
                os._exit(1)
            case "/test/refused":
                self.answer({"refused": refused, "thought": thought, "probes": probes})
            case "/test/slow":
                delay = SLOW_SECONDS
                self.answer({})
            case "/test/sick":
                sick.set()
                self.answer({})
            case "/test/freeze":
                frozen.set()
                self.answer({})
            case "/test/hang":
                hanging.set()
                self.answer({})
            case "/test/stuck":
                stuck.set()
                self.answer({})
            case "/test/busy":
                busy.set()
                self.answer({})
            case "/test/idle":
                busy.clear()
                self.answer({})
            case "/v1/completions" if frozen.is_set() or stuck.is_set():
                time.sleep(3600)
            case "/v1/completions":
                thought.append(body["prompt"])
                self.answer({})
            case "/tokenize":
                self.answer({"count": 3, "max_model_len": 512, "tokens": [1, 2, 3]})
            case "/generative_scoring":
                self.answer({"data": [{"score": 0.5}]})
            case "/v1/unload_lora_adapter":
                adapters.remove(body["lora_name"])
                self.answer("Success")
            case "/v1/load_lora_adapter":
                adapters.append(body["lora_name"])
                self.answer("Success")
            case "/v1/chat/completions" if body["model"] not in (MODEL, *adapters):
                self.answer({"error": {"message": f"The model `{body['model']}` does not exist."}}, 404)
            case "/v1/chat/completions":
                running += 1
                if "slow" in body["messages"][-1]["content"]:
                    time.sleep(3600)
                running -= 1
                self.answer(
                    {
                        "model": body["model"],
                        "choices": [{"message": {"content": f"pid {os.getpid()}"}, "finish_reason": "stop"}],
                        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
                    }
                )

    def log_message(self, *_: object) -> None:
        pass


if MODEL == "broken":
    sys.exit("ValueError: this model cannot be started")
if MODEL == "sleepy":
    time.sleep(3600)


def end_slowly(*_: object) -> None:
    time.sleep(1)
    os._exit(0)


if MODEL == "slow_stop":
    signal.signal(signal.SIGTERM, end_slowly)
print("listening", flush=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
