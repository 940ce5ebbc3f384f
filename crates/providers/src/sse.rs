//! Server-sent events, as far as streamed answers use them: the `data` of each event, whatever way the bytes were cut.
//! It does not know what the data means.
//!
//! The rules are those of the HTML standard, section 9.2.6: lines end in LF, CR or CRLF, comments begin with a colon, several
//! `data` lines are joined by LF, an event without data is none, and an event without its blank line is thrown away.

/// Longest line, and longest event, that is read.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// Why a stream of events cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line or an event is longer than [`MAX_EVENT_BYTES`].
    #[error("an event is longer than {MAX_EVENT_BYTES} bytes")]
    TooLong,
    /// The data is not UTF-8.
    #[error("an event is not UTF-8")]
    NotUtf8,
}

/// Reads a stream of events piece by piece.
#[derive(Debug, Default)]
pub struct SseReader {
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// The data lines of the event so far, each followed by LF.
    data: Vec<u8>,
    /// The last piece ended in CR: an LF at the start of the next one belongs to it.
    after_cr: bool,
    /// The first line is behind us; before it, a byte order mark is skipped.
    begun: bool,
}

impl SseReader {
    /// Takes the next bytes and hands the data of each event that they complete to `event`, in order.
    pub fn push(&mut self, mut bytes: &[u8], mut event: impl FnMut(&str)) -> Result<(), SseError> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (head, rest) = bytes.split_at(end);
            bytes = match rest {
                [b'\r', b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
            if self.line.is_empty() {
                self.line(head, &mut event)?;
            } else {
                self.keep(head)?;
                let mut line = std::mem::take(&mut self.line);
                self.line(&line, &mut event)?;
                line.clear();
                self.line = line;
            }
        }
        self.keep(bytes)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        if self.line.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(SseError::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn line(&mut self, mut line: &[u8], event: &mut impl FnMut(&str)) -> Result<(), SseError> {
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(event);
        }
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[][..],
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            _ => return Ok(()),
        };
        if self.data.len() + value.len() > MAX_EVENT_BYTES {
            return Err(SseError::TooLong);
        }
        self.data.extend_from_slice(value);
        self.data.push(b'\n');
        Ok(())
    }

    fn dispatch(&mut self, event: &mut impl FnMut(&str)) -> Result<(), SseError> {
        let Some((_, data)) = self.data.split_last() else { return Ok(()) };
        event(str::from_utf8(data).map_err(|_| SseError::NotUtf8)?);
        self.data.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_bytes_are_cut(
            stream in prop::collection::vec(
                prop_oneof![Just("data:"), Just("data: "), Just("\n"), Just("\r"), Just(":"), Just("é"), Just("\u{feff}"), Just("x")],
                0..60,
            ),
            step in 1usize..7,
        ) {
            let stream = stream.concat();
            prop_assert_eq!(read(stream.as_bytes(), stream.len().max(1)), read(stream.as_bytes(), step));
        }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let cases: [(&str, &[&str]); 9] = [
            ("data: a\n\ndata: b\n\n", &["a", "b"]),
            ("data: a\r\n\r\ndata: b\r\rdata: c\n\n", &["a", "b", "c"]),
            ("\u{feff}data:a\n\n", &["a"]),
            (": keep-alive\n\nevent: x\nid: 1\ndata: {\"k\":1}\nretry: 5\n\n", &["{\"k\":1}"]),
            ("data: one\ndata:  two\n\n", &["one\n two"]),
            ("data\n\n", &[""]),
            ("database: no\n\n\n\n", &[]),
            ("data: cut off\n", &[]),
            ("data: Grüße 日本\n\n", &["Grüße 日本"]),
        ];
        for (stream, expected) in cases {
            for step in [1, 2, 3, stream.len()] {
                assert_eq!(read(stream.as_bytes(), step).unwrap(), expected, "{stream:?} by {step}");
            }
        }
    }

    #[test]
    fn endless_lines_endless_events_and_bad_text_are_errors() {
        let mut reader = SseReader::default();
        let flood = vec![b'x'; MAX_EVENT_BYTES + 1];
        assert_eq!(reader.push(&flood, |_| {}), Err(SseError::TooLong));
        let mut reader = SseReader::default();
        let line = [b"data: ".as_slice(), &vec![b'x'; MAX_EVENT_BYTES / 2], b"\n"].concat();
        let results: Vec<_> = (0..3).map(|_| reader.push(&line, |_| {})).collect();
        assert_eq!(results.last(), Some(&Err(SseError::TooLong)));
        assert_eq!(read(b"data: \xff\n\n", 3), Err(SseError::NotUtf8));
    }

    fn read(stream: &[u8], step: usize) -> Result<Vec<String>, SseError> {
        let mut reader = SseReader::default();
        let mut events = Vec::new();
        for piece in stream.chunks(step) {
            reader.push(piece, |data| events.push(data.to_owned()))?;
        }
        Ok(events)
    }
}
