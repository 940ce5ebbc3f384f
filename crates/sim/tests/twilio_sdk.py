"""Drives the simulated Twilio with the official `twilio` package, and checks the simulator's signatures with it.

Usage: twilio_sdk.py BASE_URL ACCOUNT_SID AUTH_TOKEN NUMBER HUMAN. Exits with 0 when everything held.
"""

import json
import queue
import re
import sys
import threading
import urllib.request
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio.twiml.voice_response import Dial, Gather, VoiceResponse

BASE_URL, ACCOUNT, TOKEN, NUMBER, HUMAN = sys.argv[1:]
LIMIT_S = 20


class SimulatedHost(TwilioHttpClient):
    """Sends what is meant for the hosts of twilio.com to the simulator."""

    def request(self, method, url, **rest):
        return super().request(method, re.sub(r"^https://\w+\.twilio\.com", BASE_URL, url), **rest)


class Values(dict):
    """Parameters that may repeat, in the form the validator asks for."""

    def getlist(self, name):
        return self[name]


asked = queue.Queue()


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        url = f"http://127.0.0.1:{self.server.server_port}{self.path}"
        json_body = self.headers["Content-Type"] == "application/json"
        params = body if json_body else Values(parse_qs(body, keep_blank_values=True))
        signature = self.headers["X-Twilio-Signature"] or ""
        asked.put((self.path.split("?")[0], params, RequestValidator(TOKEN).validate(url, params, signature)))
        response = VoiceResponse()
        gather = Gather(num_digits=1, timeout=10)
        gather.say("Press a key to go on")
        response.append(gather)
        answer = str(response).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def webhook(path):
    """The next webhook, which must be this one."""
    got, params, valid = asked.get(timeout=LIMIT_S)
    assert got == path, (got, path, params)
    return params, valid


def control(path, body):
    request = urllib.request.Request(
        f"{BASE_URL}/_sim/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        return json.loads(answer.read() or b"null")


def refused(code, action):
    try:
        action()
    except TwilioRestException as error:
        assert error.code == code, error
    else:
        raise AssertionError(f"not refused with {code}")


server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
threading.Thread(target=server.serve_forever, daemon=True).start()
here = f"http://127.0.0.1:{server.server_port}"
client = Client(ACCOUNT, TOKEN, http_client=SimulatedHost())

account = client.api.v2010.accounts(ACCOUNT).fetch()
assert (account.sid, account.status, account.type) == (ACCOUNT, "active", "Full"), account

numbers = client.incoming_phone_numbers.list(phone_number=NUMBER)
assert [number.phone_number for number in numbers] == [NUMBER]
number = numbers[0].update(voice_url=f"{here}/voice", voice_method="POST", status_callback="")
assert number.voice_url == f"{here}/voice" and number.trunk_sid is None
assert client.incoming_phone_numbers(number.sid).fetch().voice_url == f"{here}/voice"
assert isinstance(number.date_created, datetime)

shops = client.available_phone_numbers.list()
assert "US" in [shop.country_code for shop in shops], shops
found = client.available_phone_numbers("US").local.list(area_code=212, sms_enabled=True, contains="5550*", limit=3)
assert [sold.iso_country for sold in found] == ["US"] * 3 and found[0].capabilities["voice"], found
assert client.available_phone_numbers("US").toll_free.list(limit=1)[0].phone_number.startswith("+1888")
assert client.available_phone_numbers("GB").mobile.list(exclude_all_address_required=True) == []
refused(20404, client.available_phone_numbers("XX").fetch)

wanted = found[0].phone_number
bought = client.incoming_phone_numbers.create(
    phone_number=wanted, friendly_name="Front desk", voice_url=f"{here}/voice", sms_url=f"{here}/sms"
)
assert (bought.phone_number, bought.voice_url, bought.voice_method) == (wanted, f"{here}/voice", "POST"), bought
assert isinstance(bought.date_created, datetime) and bought.capabilities["sms"]
refused(21422, lambda: client.incoming_phone_numbers.create(phone_number=wanted))
refused(21631, lambda: client.incoming_phone_numbers.create(phone_number="+447700900200"))
bought = bought.update(voice_url="", trunk_sid="", voice_receive_mode="voice", status_callback=f"{here}/status")
assert (bought.voice_url, bought.status_callback) == ("", f"{here}/status")
assert len(client.incoming_phone_numbers.list(page_size=1)) == 2

trunk = client.trunking.v1.trunks.create(
    friendly_name="Offhook", domain_name="offhook.pstn.twilio.com", secure=True, transfer_mode="enable-all"
)
assert trunk.secure is True and trunk.transfer_mode == "enable-all" and isinstance(trunk.date_created, datetime)
origination = trunk.origination_urls.create(
    weight=10, priority=5, enabled=True, friendly_name="here", sip_url="sip:sip.example:5061;transport=tls"
)
assert (origination.priority, origination.enabled) == (5, True)
assert origination.update(weight=20).weight == 20
assert [url.sid for url in trunk.origination_urls.list()] == [origination.sid]
assert trunk.phone_numbers.create(phone_number_sid=bought.sid).trunk_sid == trunk.sid
assert bought.fetch().trunk_sid == trunk.sid
assert [member.phone_number for member in trunk.phone_numbers.list()] == [wanted]
assert trunk.phone_numbers(bought.sid).delete() and bought.fetch().trunk_sid is None
assert trunk.recordings().update(mode="record-from-answer-dual", trim="trim-silence").trim == "trim-silence"
for name in "abc":
    client.trunking.v1.trunks.create(friendly_name=name)
assert len(client.trunking.v1.trunks.list(page_size=2)) == 4
assert origination.delete() and trunk.delete()
refused(20404, trunk.fetch)

service = client.messaging.v1.services.create(friendly_name="Texts", use_inbound_webhook_on_number=True)
assert service.phone_numbers.create(phone_number_sid=bought.sid).phone_number == wanted
refused(21710, lambda: service.phone_numbers.create(phone_number_sid=bought.sid))
assert [member.sid for member in service.phone_numbers.list()] == [bought.sid]
assert service.phone_numbers(bought.sid).delete() and service.phone_numbers.list() == []
assert service.update(use_inbound_webhook_on_number=False).use_inbound_webhook_on_number is False
assert service.delete()

assert client.routes.v2.phone_numbers(wanted).update(voice_region="ie1").voice_region == "ie1"
assert client.routes.v2.phone_numbers(wanted).fetch().phone_number == wanted
prices = client.pricing.v1.phone_numbers.countries("US").fetch()
assert prices.phone_number_prices[0]["number_type"] == "local", prices.phone_number_prices

assert bought.delete() is True
refused(20404, bought.fetch)
assert client.incoming_phone_numbers.list(phone_number=wanted) == []

call = client.calls.create(
    to=HUMAN,
    from_=NUMBER,
    url=f"{here}/answered?order=1",
    status_callback=f"{here}/status",
    status_callback_event=["initiated", "ringing", "answered", "completed"],
)
assert call.status == "queued" and call.direction == "outbound-api", call.status
paths = []
for _ in range(4):
    path, params, valid = asked.get(timeout=LIMIT_S)
    assert valid, (path, params)
    assert params["CallSid"] == [call.sid]
    paths.append(path)
assert sorted(paths) == ["/answered", "/status", "/status", "/status"], paths
assert call.fetch().status == "in-progress"
call.update(twiml=str(VoiceResponse()))
params, valid = webhook("/status")
assert valid and params["CallStatus"] == ["completed"], params
call = client.calls(call.sid).fetch()
assert call.status == "completed" and isinstance(call.end_time, datetime), (call.status, call.end_time)

held = client.calls.create(to=HUMAN, from_=NUMBER, url=f"{here}/answered")
webhook("/answered")
assert held.update(status="completed").sid == held.sid

room = VoiceResponse()
dial = Dial(action=f"{here}/left")
dial.conference("desk", wait_url="", beep="false", participant_label="human", status_callback=f"{here}/room",
                status_callback_event="start end join leave")
room.append(dial)
human = client.calls.create(to=HUMAN, from_=NUMBER, twiml=str(room))
params, valid = webhook("/room")
assert valid and params["StatusCallbackEvent"] == ["participant-join"], params
conference = client.conferences.list(friendly_name="desk", status="init")[0]
assert conference.sid == params["ConferenceSid"][0] and isinstance(conference.date_created, datetime)
inside = conference.participants.list()
assert [(one.call_sid, one.label, one.status) for one in inside] == [(human.sid, "human", "connected")], inside
assert conference.participants(human.sid).update(muted=True).muted is True
assert conference.update(status="completed").reason_conference_ended == "conference-ended-via-api"
asked_then = sorted(asked.get(timeout=LIMIT_S)[0] for _ in range(3))
assert asked_then == ["/left", "/room", "/room"], asked_then
human.update(status="completed")
held_calls = len(client.calls.list(to=HUMAN))

today = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
for _ in range(3):
    last = client.calls.create(to=HUMAN, from_=NUMBER, twiml="<Response/>")
assert len(client.calls.list(to=HUMAN, page_size=2)) == held_calls + 3
assert len(client.calls.list(to=HUMAN, limit=3, page_size=2)) == 3
assert len(client.calls.list(to=HUMAN, start_time_after=today)) == held_calls + 3
assert client.calls.list(to=HUMAN, start_time_before=today) == []
assert client.calls.list(from_=NUMBER, page_size=1, limit=1)[0].sid == last.sid
assert client.messages.list(limit=1) == []

refused(21211, lambda: client.calls.create(to="12", from_=NUMBER, twiml="<Response/>"))
refused(20404, lambda: client.calls("CA" + "0" * 32).fetch())
wrong = Client(ACCOUNT, "wrong", http_client=SimulatedHost())
refused(20003, lambda: wrong.api.v2010.accounts(ACCOUNT).fetch())

order = {"to": NUMBER, "from": "+14155550199", "extra_params": [["Twice", "b"], ["Twice", "a"], ["Twice", "b"]]}
for signing, expected in [("right", True), ("wrong_token", False), ("unsigned", False), ("tampered_body", False)]:
    placed = control("calls", {**order, "signing": signing})
    params, valid = webhook("/voice")
    assert params["CallSid"] == [placed["sid"]] and valid == expected, (signing, valid)
    client.calls(placed["sid"]).update(status="completed")

number.update(voice_url="http://127.0.0.1:1/voice", voice_fallback_url=f"{here}/fallback")
placed = control("calls", order)
params, valid = webhook("/fallback")
assert valid and params["ErrorCode"] == ["11205"], params
alerts = client.monitor.v1.alerts.list(log_level="error", start_date=today)
assert alerts[0].error_code == "11205" and alerts[0].resource_sid == placed["sid"], alerts[0].alert_text
assert alerts[0].request_url == "http://127.0.0.1:1/voice" and isinstance(alerts[0].date_generated, datetime)
assert "CallStatus=ringing" in client.monitor.v1.alerts(alerts[0].sid).fetch().request_variables
client.calls(placed["sid"]).update(status="completed")

control("rest-trouble", {"which": {"method": "POST"}, "trouble": "too_many_requests"})
refused(20429, lambda: client.calls.create(to=HUMAN, from_=NUMBER, twiml="<Response/>"))

for signing, expected in [("right", True), ("wrong_token", False), ("tampered_body", False)]:
    control(f"webhooks/event?url={here}/event&signing={signing}", {"event": "größe"})
    params, valid = webhook("/event")
    assert isinstance(params, str) and valid == expected, (signing, params, valid)

print("the twilio package is content")
