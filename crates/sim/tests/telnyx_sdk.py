"""Drives the simulated Telnyx with the official `telnyx` package, and checks the simulator's signatures with it.

Usage: telnyx_sdk.py BASE_URL API_KEY PUBLIC_KEY VOICE_PROFILE HUMAN. Exits with 0 when everything held.
"""

import queue
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import telnyx

BASE_URL, KEY, PUBLIC_KEY, VOICE_PROFILE, HUMAN = sys.argv[1:]
LIMIT_S = 20

told = queue.Queue()


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        told.put((body, dict(self.headers)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def webhook(event_type):
    """The next webhook, which must be this one and rightly signed."""
    body, headers = told.get(timeout=LIMIT_S)
    event = client.webhooks.unwrap(body, headers=headers)
    assert event.data.event_type == event_type, (event_type, body)
    return event.data


def refused(kind, action):
    try:
        action()
    except kind:
        return
    raise AssertionError(f"not refused with {kind.__name__}")


server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
threading.Thread(target=server.serve_forever, daemon=True).start()
here = f"http://127.0.0.1:{server.server_port}"
client = telnyx.Telnyx(api_key=KEY, public_key=PUBLIC_KEY, base_url=BASE_URL, max_retries=0)

assert client.balance.retrieve().data.currency == "USD"
profiles = list(client.outbound_voice_profiles.list(page_size=1))
assert [profile.id for profile in profiles] == [VOICE_PROFILE], profiles

application = client.call_control_applications.create(
    application_name="from the package",
    webhook_event_url=f"{here}/voice",
    webhook_api_version="2",
    outbound={"outbound_voice_profile_id": VOICE_PROFILE},
).data
assert int(application.id) > 2**53, application.id
found = list(client.call_control_applications.list(filter={"application_name": {"contains": "the package"}}))
assert [each.id for each in found] == [application.id]
assert client.call_control_applications.retrieve(application.id).data.webhook_event_url == f"{here}/voice"
profile = client.messaging_profiles.create(name="texts", whitelisted_destinations=["US"]).data

available = client.available_phone_numbers.list(
    filter={"country_code": "US", "national_destination_code": "415", "features": ["voice", "sms"], "limit": 3}
)
assert len(available.data) == 3, available
number = available.data[0].phone_number
order = client.number_orders.create(
    phone_numbers=[{"phone_number": number}], connection_id=application.id, customer_reference="ref 1"
).data
assert order.status == "pending", order
started = time.monotonic()
while client.number_orders.retrieve(order.id).data.status != "success":
    assert time.monotonic() - started < LIMIT_S
assert [each.id for each in client.number_orders.list(filter={"customer_reference": "ref 1"})] == [order.id]

(bought,) = list(client.phone_numbers.list(filter={"phone_number": number}))
assert (bought.connection_id, bought.status) == (application.id, "active"), bought
updated = client.phone_numbers.update(bought.id, customer_reference="ref 2", tags=["offhook"]).data
assert (updated.customer_reference, updated.tags) == ("ref 2", ["offhook"]), updated
texting = client.phone_numbers.messaging.update(bought.id, messaging_profile_id=profile.id).data
assert texting.messaging_profile_id == profile.id, texting
speaking = client.phone_numbers.voice.update(bought.id, inbound_call_screening="flag_calls").data
assert speaking.inbound_call_screening == "flag_calls", speaking
assert len(list(client.phone_numbers.list(page_size=1))) == 2, "every page is followed"

call = client.calls.dial(connection_id=application.id, to=HUMAN, from_=number, client_state="b3V0").data
assert call.is_alive is False and call.record_type == "call"
initiated = webhook("call.initiated")
assert (initiated.payload.direction, initiated.payload.client_state) == ("outgoing", "b3V0"), initiated
assert webhook("call.answered").payload.call_control_id == call.call_control_id
assert client.calls.retrieve_status(call.call_control_id).data.is_alive is True
spoken = client.calls.actions.speak(call.call_control_id, payload="Hello", voice="AWS.Polly.Joanna", command_id="1")
assert spoken.data.result == "ok"
webhook("call.speak.started")
assert webhook("call.speak.ended").payload.status == "completed"
assert client.calls.actions.hangup(call.call_control_id).data.result == "ok"
over = webhook("call.hangup").payload
assert (over.hangup_cause, over.hangup_source) == ("normal_clearing", "caller"), over
refused(telnyx.UnprocessableEntityError, lambda: client.calls.actions.hangup(call.call_control_id))

refused(telnyx.NotFoundError, lambda: client.phone_numbers.retrieve("1"))
refused(telnyx.UnprocessableEntityError, lambda: client.calls.dial(connection_id="1", to=HUMAN, from_=number))
stranger = telnyx.Telnyx(api_key="KEY_wrong", base_url=BASE_URL, max_retries=0)
refused(telnyx.AuthenticationError, lambda: stranger.balance.retrieve())

assert client.phone_numbers.delete(bought.id).data.status == "deleted"
client.messaging_profiles.delete(profile.id)
client.call_control_applications.delete(application.id)

print("the telnyx package is content")
