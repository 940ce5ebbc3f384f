//! Twilio's error codes that deserve a sentence of their own (error dictionary), told to the user who can act on them.
//! It knows neither the request nor the account that failed.

use std::borrow::Cow;

/// What a user needs to know about an error code, for those codes that have an answer.
pub fn sentence(code: u32) -> Option<&'static str> {
    Some(match code {
        10002 | 21404 => {
            "A trial account may own one number and use a part of Twilio's features; upgrade it, or release the other number first."
        }
        11100 => "An address in the answer to a call is not a valid URL.",
        11200 => {
            "Twilio reached our webhook address but got an error, or no answer in time; check that Offhook runs behind it."
        }
        11205 => {
            "Twilio could not connect to our webhook address; check that the public URL is reachable from the internet."
        }
        11215 => "Our webhook address redirects too often; give Twilio the final address.",
        11751 => "Twilio could not load a media file: it is too large or its address does not answer.",
        12100 => {
            "Twilio could not read our answer as TwiML; something between Twilio and Offhook may have replaced it."
        }
        12200 => "Our answer has TwiML that Twilio does not know; it may have left a part out.",
        13224 => "Twilio cannot call this number: it is invalid or not supported.",
        13225 => {
            "Twilio's dialing permissions forbid calls to this number; allow its country in the Twilio console."
        }
        20003 => {
            "Twilio does not accept these credentials; check the Account SID, the token or key, and the account's region."
        }
        20404 => "Twilio knows no such thing in this account.",
        20429 => "Twilio asks for fewer requests; try again in a moment.",
        21211 => "The number to call is not valid; write it as +14155550123.",
        21212 => "The number to call from is not valid; write it as +14155550123.",
        21215 => "The Twilio account may not call this country; allow it under voice geographic permissions.",
        21220 => "The call is not in progress any more.",
        21408 => {
            "The Twilio account may not text this country; allow it under messaging geographic permissions."
        }
        21421 => "This is no telephone number; write it as +14155550123.",
        21422 => "This number is no longer available; choose another.",
        21606 => "This number cannot send messages to that recipient; send from a number that can text.",
        21608 => {
            "A trial account reaches verified numbers only; verify the recipient or upgrade the Twilio account."
        }
        21610 => "The recipient has opted out with STOP; nothing can be sent until they opt in again.",
        21612 => "Twilio has no route from this number to that recipient.",
        21614 => "The recipient's number is not a mobile number.",
        21613 | 21631 | 21649 => {
            "This number needs an address or a regulatory bundle; add it in the Twilio console."
        }
        30001 => "Too many messages wait at Twilio; send more slowly.",
        30003 => "The recipient's phone cannot be reached; it may be switched off.",
        30005 => "The recipient's number does not exist, or not any more.",
        30006 => "The recipient's number is a landline or cannot receive messages.",
        30007 => "A carrier filtered the message as spam; check its wording and the sender's registration.",
        30008 => "The message was not delivered and the carrier does not say why.",
        30032 => "The toll-free number is not verified for messages yet.",
        30034 => "The number is not registered for A2P 10DLC; register the brand and the campaign.",
        30450 => "Delivery is blocked by an opt-out or a policy.",
        31901 => {
            "Twilio could not connect to our media socket in time; check that the public URL takes WebSockets."
        }
        31903 => "The media connection broke: the server went away in mid-call.",
        31920 => "Our media socket refused Twilio's connection; a proxy may not pass WebSocket upgrades on.",
        31921 => "Our server closed the media connection.",
        31924 => "Twilio could not understand a message on the media connection.",
        39001 => "The speech session with Twilio failed.",
        64101 => "Twilio's speech features are not switched on; accept them once in the Twilio console.",
        64105 => "Twilio closed the speech session after too many messages that it could not understand.",
        64107 => "Twilio could not understand a message of the speech session.",
        70051 => {
            "These credentials are right but lack a permission; widen the key's permissions in the Twilio console."
        }
        _ => return None,
    })
}

/// The sentence for an error code, or where Twilio says more about it.
pub(super) fn sentence_or_link(code: u32) -> Cow<'static, str> {
    match sentence(code) {
        Some(sentence) => sentence.into(),
        None => format!("see https://www.twilio.com/docs/errors/{code}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn a_code_has_a_sentence_or_none() {
        assert!(sentence(13225).unwrap().contains("dialing permissions"));
        assert_eq!(sentence(21631), sentence(21649));
        assert_eq!(sentence(1), None);
    }
}
