"""Rings a server with requests that the official `twilio` package has signed, and reads its answers with that package.

Usage: twilio_signs.py SERVER PUBLIC_URL ACCOUNT_SID AUTH_TOKEN NUMBER. Prints the socket that the caller is led to, and exits with 0 when
everything held.
"""

import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from xml.etree import ElementTree

from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import VoiceResponse

SERVER, PUBLIC_URL, ACCOUNT, TOKEN, NUMBER = sys.argv[1:]
LIMIT_S = 20
VOICE = "/hooks/twilio/voice"


class Values(dict):
    """Parameters that may repeat, in the form the package asks for."""

    def getlist(self, name):
        return self[name] if isinstance(self[name], list) else [self[name]]


def sign(url, params, token=TOKEN):
    """The signature of a request, as the package makes it."""
    return RequestValidator(token).compute_signature(url, Values(params))


def post(path, params, signature):
    """What the server answers: status, and the document."""
    body = urllib.parse.urlencode(params, doseq=True).encode()
    request = urllib.request.Request(SERVER + path, body, {"X-Twilio-Signature": signature})
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def written_anew(element, parent):
    """Lets the package write a document of ours: it raises on a verb or an attribute that it does not know."""
    for child in element:
        words = {re.sub(r"[A-Z]", lambda c: "_" + c[0].lower(), name): value for name, value in child.attrib.items()}
        text = [child.text] if child.text and child.text.strip() else []
        verb = getattr(parent, child.tag.lower())(*text, **words)
        written_anew(child, verb)
    return parent


def read(document):
    """Checks that the package would have written the same document; returns its elements."""
    ours = ElementTree.fromstring(document)
    theirs = str(written_anew(ours, VoiceResponse()))
    assert ElementTree.canonicalize(document) == ElementTree.canonicalize(theirs), (document, theirs)
    return ours


def ringing(call, **more):
    return {
        "AccountSid": ACCOUNT,
        "ApiVersion": "2010-04-01",
        "CallSid": call,
        "CallStatus": "ringing",
        "Direction": "inbound",
        "From": "+14155550100",
        "To": NUMBER,
        **more,
    }


def takes(path, params, signed_url):
    status, document = post(path, params, sign(signed_url, params))
    assert status == 200, (status, document)
    return read(document)


# One call for each form in which a request may be signed: its address as it is, with a query, with the port that goes without saying,
# and with parameters that are empty, repeated, new to us, or not English.
public = urllib.parse.urlsplit(PUBLIC_URL)
with_port = f"{public.scheme}://{public.hostname}:{public.port or (443 if public.scheme == 'https' else 80)}"
calls = [f"CA{nr:032x}" for nr in range(1, 5)]
takes(VOICE, ringing(calls[0]), PUBLIC_URL + VOICE)
takes(VOICE + "?shop=1&x=%20", ringing(calls[1]), PUBLIC_URL + VOICE + "?shop=1&x=%20")
takes(VOICE, ringing(calls[2]), with_port + VOICE)
odd = ringing(calls[3], CallerName="Zoë & Müller", FromCity="", NewParameter=["b", "a", "b"], StirVerstat="TN-Validation-Passed-A")
answer = takes(VOICE, odd, PUBLIC_URL + VOICE)
stream = answer.find("Connect/Stream")
assert stream is not None, ElementTree.tostring(answer)
print(stream.attrib["url"])

# The same request once more is the same call.
assert takes(VOICE, odd, PUBLIC_URL + VOICE).find("Connect/Stream").attrib["url"] == stream.attrib["url"]

# What the package did not sign with our token, or signed otherwise, is refused.
tampered = ringing(calls[0], From="+14155550199")
for path, params, signature in [
    (VOICE, ringing(calls[0]), sign(PUBLIC_URL + VOICE, ringing(calls[0]), token="0" * 32)),
    (VOICE, tampered, sign(PUBLIC_URL + VOICE, ringing(calls[0]))),
    (VOICE + "?x=1", ringing(calls[0]), sign(PUBLIC_URL + VOICE, ringing(calls[0]))),
]:
    status, document = post(path, params, signature)
    assert status == 403, (path, params, status, document)

# The callers hang up.
for call in calls:
    params = ringing(call, CallStatus="completed", CallDuration="3", SequenceNumber="3")
    status, document = post("/hooks/twilio/status", params, sign(PUBLIC_URL + "/hooks/twilio/status", params))
    assert status == 204, (status, document)
