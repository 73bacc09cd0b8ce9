"""A chat server on the loopback that follows a script: a small rule-based "model", and faults where a test wants them.

It answers the prompts of `audiobert.construct` from the data in the last user message, always the same to the same
question, so that two runs can be compared byte by byte.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

# word in the texts of a clip: category, what is heard (animal: the sound; else: the thing), a typical pitch rank in Hz
KNOWN: dict[str, tuple[str, str, float]] = {
    "dog": ("animal/dog", "barking", 500),
    "cat": ("animal/cat", "meowing", 600),
    "cow": ("animal/cow", "mooing", 200),
    "rooster": ("animal/bird/rooster", "crowing", 700),
    "hen": ("animal/bird/hen", "clucking", 600),
    "chicken": ("animal/bird/chicken", "clucking", 600),
    "crow": ("animal/bird/crow", "cawing", 900),
    "bird": ("animal/bird", "chirping", 3000),
    "sheep": ("animal/sheep", "bleating", 400),
    "pig": ("animal/pig", "oinking", 300),
    "frog": ("animal/frog", "croaking", 500),
    "insect": ("animal/insect", "buzzing", 300),
    "donkey": ("animal/donkey", "braying", 400),
    "cricket": ("animal/insect/cricket", "chirring", 4000),
    "lion": ("animal/lion", "roaring", 150),
    "monkey": ("animal/monkey", "screeching", 1500),
    "baby": ("human/baby", "crying", 450),
    "sneez": ("human/sneeze", "sneezing", 500),
    "laugh": ("human/laughter", "laughing", 300),
    "cough": ("human/cough", "coughing", 300),
    "snor": ("human/snore", "snoring", 100),
    "breath": ("human/breath", "breathing", 300),
    "clapp": ("human/applause", "clapping", 1000),
    "footstep": ("human/footsteps", "footsteps", 150),
    "drink": ("human/drinking", "drinking", 400),
    "teeth": ("human/brushing", "brushing", 2000),
    "banjo": ("music/string/banjo", "banjo", 330),
    "contrabassoon": ("music/woodwind/contrabassoon", "contrabassoon", 70),
    "bass clarinet": ("music/woodwind/bass clarinet", "bass clarinet", 150),
    "bassoon": ("music/woodwind/bassoon", "bassoon", 160),
    "cello": ("music/string/cello", "cello", 170),
    "clarinet": ("music/woodwind/clarinet", "clarinet", 440),
    "cor anglais": ("music/woodwind/cor anglais", "cor anglais", 350),
    "double bass": ("music/string/double bass", "double bass", 80),
    "flute": ("music/woodwind/flute", "flute", 800),
    "french horn": ("music/brass/french horn", "french horn", 230),
    "guitar": ("music/string/guitar", "guitar", 250),
    "mandolin": ("music/string/mandolin", "mandolin", 500),
    "oboe": ("music/woodwind/oboe", "oboe", 600),
    "saxophone": ("music/woodwind/saxophone", "saxophone", 300),
    "trombone": ("music/brass/trombone", "trombone", 180),
    "triangle": ("music/percussion/triangle", "triangle", 3500),
    "bass drum": ("music/percussion/bass drum", "bass drum", 60),
    "gong": ("music/percussion/gong", "gong", 200),
    "snare": ("music/percussion/snare drum", "snare drum", 250),
    "tambourine": ("music/percussion/tambourine", "tambourine", 4000),
    "chainsaw": ("object/tool/chainsaw", "chainsaw", 220),
    "helicopter": ("object/vehicle/helicopter", "helicopter", 90),
    "clock": ("object/clock", "clock", 1500),
    "airplane": ("object/vehicle/airplane", "airplane", 120),
    "car horn": ("object/vehicle/car horn", "car horn", 400),
    "siren": ("object/siren", "siren", 900),
    "train": ("object/vehicle/train", "train", 300),
    "engine": ("object/engine", "engine", 100),
    "vacuum": ("object/vacuum cleaner", "vacuum cleaner", 250),
    "washing": ("object/washing machine", "washing machine", 110),
    "church": ("object/bell/church bell", "church bell", 500),
    "door": ("object/door", "door", 350),
    "keyboard": ("object/keyboard", "keyboard", 1800),
    "mouse": ("object/mouse button", "computer mouse", 2000),
    "glass": ("object/glass", "breaking glass", 3200),
    "saw": ("object/tool/saw", "hand saw", 700),
    "can": ("object/can", "opening can", 1600),
    "toilet": ("object/toilet", "flushing toilet", 260),
    "firework": ("object/firework", "firework", 190),
    "rain": ("environment/weather/rain", "falling rain", 2200),
    "sea": ("environment/water/sea", "sea wave", 280),
    "fire": ("environment/fire", "crackling fire", 1200),
    "thunder": ("environment/weather/thunder", "thunderstorm", 70),
    "wind": ("environment/weather/wind", "howling wind", 320),
    "water": ("environment/water", "dripping water", 900),
}

_ANIMAL_FORMS = (
    "{Sound} is the sound a [MASK] makes.",
    "A [MASK] can often be heard {sound}.",
    "The {sound} in the yard came from a [MASK].",
    "When it is excited, a [MASK] starts {sound} loudly.",
    "We were woken up by the {sound} of a [MASK] at dawn.",
)
_TURNS = ("at night", "in the morning", "on the farm", "behind the house", "far away", "close by", "after the rain")
_SOMETIMES = 64  # of so many answers, one is spoilt in each of the ways below


def number_of(*parts: object) -> int:
    """A number that depends on nothing but the parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _known(fields: dict[str, Any]) -> tuple[str, str, float] | None:
    text = " ".join([*fields.get("captions", []), fields.get("title", ""), *fields.get("tags", [])]).lower()
    found = [word for word in KNOWN if word in text]
    return KNOWN[max(found, key=len)] if found else None


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def category_answer(fields: dict[str, Any]) -> dict[str, Any]:
    """The category by the words of the clip's texts."""
    known = _known(fields)
    return {"category": known[0] if known else "0"}


def animal_answer(fields: dict[str, Any]) -> dict[str, Any]:
    """A sentence about the animal, spoilt now and then in one of the ways that the rules know."""
    known, number = _known(fields), number_of("animal", fields)
    if known is None or not known[0].startswith("animal/"):
        return {"usable": False, "sentence": "", "animal": "", "span": ""}
    animal, sound = known[0].split("/")[-1], known[1]
    sentence = _ANIMAL_FORMS[number % len(_ANIMAL_FORMS)].format(sound=sound, Sound=sound.capitalize())
    if number // 8 % 3:
        sentence = f"{sentence[:-1]} {_TURNS[number // 32 % len(_TURNS)]}."
    span = sound if sound in sentence else sound.capitalize()
    spoilt = {
        1: (sentence.replace("[MASK]", animal), animal, span),
        2: (f"{sentence[:-1]} like a [MASK].", animal, span),
        3: (sentence, animal, "purple hum"),
        4: (f"{sentence[:-1]}, as any {animal} would.", animal, span),
        5: (sentence, "zombie", span),
        6: (sentence, "glimmerfang", span),
    }
    sentence, animal, span = spoilt.get(number // 1024 % _SOMETIMES, (sentence, animal, span))
    return {"usable": True, "sentence": sentence, "animal": animal, "span": span}


def pitch_answer(fields: dict[str, Any]) -> dict[str, Any]:
    """A comparison by a rough table of what is high and what is low."""
    names, ranks = [], []
    for letter in ("A", "B"):
        known = _known(fields[letter])
        names.append(known[1] if known else " ".join(fields[letter]["category"].split("/")[-1:]))
        ranks.append(known[2] if known else 500.0)
    place = ("", " outdoors", " in a large hall", " in a small room", " from nearby", " from far away")
    number = number_of("pitch", fields)
    span_a = f"sound of {_with_article(names[0])}{place[number % 6]}"
    span_b = f"sound of {_with_article(names[1])}{place[number // 8 % 6]}"
    sentence = f"The {span_a} typically has a [MASK] pitch than the {span_b}."
    if number // 1024 % _SOMETIMES == 1:
        sentence = f"The {span_b} typically has a [MASK] pitch than the {span_a}."
    return {"sentence": sentence, "span_a": span_a, "span_b": span_b, "higher": "A" if ranks[0] > ranks[1] else "B"}


ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "CategoryAnswer": category_answer,
    "AnimalAnswer": animal_answer,
    "PitchAnswer": pitch_answer,
}


@dataclass
class Fault:
    """What goes wrong with a request: a status, a pause, a body, or a closed connection."""

    status: int = 200
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.0
    close: bool = False


Script = Callable[[int, dict[str, Any]], Fault | None]


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class ScriptedServer:
    """The server, running in a thread while the `with` block lasts.

    Parameters
    ----------
    script
        Called with the number of the request (from 0) and its body; a `Fault` to play, or None to answer.
    answer
        Turns (kind of answer, fields) into the text of the completion; the rule-based model by default. Of a chat
        that is no prompt of the construction, the kind is "" and the fields are `{"text": the last message}`.
    formats
        The `response_format` types that the server understands; others are refused with 400, as servers do.
    """

    def __init__(
        self,
        script: Script | None = None,
        answer: Callable[[str, dict[str, Any]], str] | None = None,
        formats: tuple[str, ...] = ("json_schema", "json_object"),
    ) -> None:
        self.script, self.answer, self.formats = script, answer, formats
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered: Counter[str] = Counter()
        self.open_connections = 0
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def setup(self) -> None:
                super().setup()
                with owner._lock:
                    owner.open_connections += 1

            def finish(self) -> None:
                with owner._lock:
                    owner.open_connections -= 1
                super().finish()

            def do_POST(self) -> None:
                owner._play(self)

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Base URL, up to and with /v1."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def requests(self) -> int:
        """How many requests have come in."""
        return len(self.bodies)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _play(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append(dict(handler.headers.items()))
        fault = self.script(number, body) if self.script else None
        if fault is None and handler.path != "/v1/chat/completions":
            fault = Fault(404, "no such page")
        wanted = body.get("response_format", {}).get("type")
        if fault is None and wanted and wanted not in self.formats:
            fault = Fault(400, json.dumps({"error": {"message": f"response_format {wanted} is not supported"}}))
        if fault is not None:
            time.sleep(fault.pause_s)
            if fault.close:
                handler.close_connection = True
                handler.connection.close()
                return
            if fault.status != 200 or fault.body is not None:
                self._send(handler, fault.status, fault.body or "", fault.headers)
                return
        text = self._complete(body)
        with self._lock:
            self.answered[json.dumps(body["messages"], sort_keys=True)] += 1
        usage = {"prompt_tokens": sum(len(one["content"]) for one in body["messages"]) // 4}
        usage["completion_tokens"] = len(text) // 4
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self._send(handler, 200, json.dumps({"choices": [choice], "usage": usage}))

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        data = body.encode()
        try:
            handler.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)
        except OSError:
            pass  # the client has gone

    def _complete(self, body: dict[str, Any]) -> str:
        messages = body["messages"]
        kind = next((name for name in ANSWERS if f'"title": "{name}"' in messages[0]["content"]), "")
        if not kind:
            return self.answer(kind, {"text": messages[-1]["content"]}) if self.answer else "yes"
        repair = messages[-1]["content"].startswith("That is not the wanted JSON")
        fields = json.loads(messages[-3 if repair else -1]["content"])
        if self.answer is not None:
            return self.answer(kind, fields)
        text = json.dumps(ANSWERS[kind](fields))
        broken = number_of("broken", kind, fields) % _SOMETIMES
        if broken == 1:
            return f"Sure! Here it is:\n```json\n{text[:-1]},}}\n```"  # mended by tolerant parsing
        if broken == 2:
            return text if repair else "I would rather tell you about my day."  # put right when asked again
        if broken == 3:
            return "I cannot do that."  # never put right
        return text
