//! Telnyx's error codes that deserve a sentence of their own ("API error codes"), told to the user who can act on them.
//! It knows neither the request nor the account that failed.

/// What a user needs to know about an error code, for those codes that have an answer.
pub fn sentence(code: u32) -> Option<&'static str> {
    Some(match code {
        10001 => "This number is not active at Telnyx; look at its status in the Telnyx portal.",
        10002 => "This number is not valid; write it as +14155550123.",
        10003 => {
            "Telnyx does not accept our address; the public URL must be reachable from the internet and shorter than 2,000 characters."
        }
        10004 => "Telnyx misses something in the request; its own words say what.",
        10005 => "Telnyx knows no such thing in this account.",
        10006 => "Telnyx knows no such thing, or this API key belongs to another account.",
        10007 => "Telnyx had an error of its own; try again in a moment.",
        10008 => "Telnyx took too long; try again in a moment.",
        10009 => "Telnyx does not accept this API key; paste the whole key, which begins with KEY.",
        10010 => {
            "The API key is right but lacks a permission; widen it under API keys in the Telnyx portal, or use a key with all of them."
        }
        10011 => "Telnyx asks for fewer requests; try again in a moment.",
        10012 => "There is such a thing at Telnyx already.",
        10013 | 10017 => {
            "Something that the request names is gone from the Telnyx account; test the connection and try again."
        }
        10015 => "Telnyx does not understand the request; its own words say why.",
        10016 => "The number is not in E.164; write it as +14155550123.",
        10021 => "It is still in use at Telnyx and cannot be removed.",
        10027 => "Telnyx cannot do this as things stand; its own words say why.",
        10032 => "Telnyx does not know one of the values in the request; its own words say which.",
        10033 => "One of the values in the request is outside what Telnyx allows; its own words say which.",
        40001 => "The recipient cannot be reached by text; the number may be a landline.",
        40008 => "The recipient has opted out with STOP; nothing can be sent until they opt in again.",
        40300 => "A carrier rejected the message; check its wording and the sender's registration.",
        40305 => "The sending number is not in the messaging profile; add it in the Telnyx portal.",
        40309 => {
            "The messaging profile may not text this country; add it to the profile's allowed destinations in the Telnyx portal."
        }
        40310 => "The recipient's number is not valid; write it as +14155550123.",
        40321 => "The messaging profile has no number that could send this message.",
        75001 => {
            "Telnyx cannot find the host of our webhook address; check the public URL and its name in DNS."
        }
        90014 => "The keys to press are digits, A to D, * and #, with w or W to wait.",
        90015 => "Telnyx knows no such call, or not any more.",
        90018 => "The call is over.",
        90034 => "The call is not answered yet.",
        90045 => "This cannot be done while the call's audio is streamed.",
        90103 => "Telnyx allows 30 new calls a second; try again in a moment.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn a_code_has_a_sentence_or_none() {
        assert!(sentence(10010).unwrap().contains("permission"));
        assert_eq!(sentence(10013), sentence(10017));
        assert_eq!(sentence(1), None);
    }
}
