//! A voice of a call, and its audio as the line wants it. It does not know what is said.

use offhook_core::call::ReplyId;
use offhook_media::coding::{Coding, Transcoder};
use offhook_providers::{TtsEvent, TtsSession};
use std::future::poll_fn;
use std::task::Poll;

/// A voice that is open for a call.
pub(super) struct Voice {
    pub(super) index: u8,
    pub(super) session: TtsSession,
    pub(super) alive: bool,
    /// The way from its coding to the line's; `None` while it is lent, and where there is none.
    to_line: Option<Transcoder>,
    /// Whose audio is on that way.
    reply: Option<ReplyId>,
}

impl Voice {
    /// A voice that speaks in one coding, for a line of another.
    pub(super) fn new(index: u8, session: TtsSession, spoken: Coding, line: Coding) -> Self {
        let to_line = Transcoder::new(spoken, line).inspect_err(|error| {
            tracing::error!(%error, "A voice is not heard: its audio cannot be brought to the line");
        });
        Voice { index, session, alive: true, to_line: to_line.ok(), reply: None }
    }

    /// Lends the way to the line for the next audio of a reply.
    pub(super) fn lend(&mut self, reply: ReplyId) -> Option<Transcoder> {
        let mut to_line = self.to_line.take()?;
        if self.reply.replace(reply) != Some(reply) {
            // What is left on it belongs to a reply that was dropped.
            to_line.flush();
        }
        Some(to_line)
    }

    /// Takes the way to the line back.
    pub(super) fn give_back(&mut self, to_line: Transcoder) {
        self.to_line = Some(to_line);
    }
}

pub(super) async fn next_from_voices(voices: &mut [Voice]) -> (usize, Option<TtsEvent>) {
    poll_fn(|cx| {
        for (index, voice) in voices.iter_mut().enumerate().filter(|(_, v)| v.alive) {
            if let Poll::Ready(event) = voice.session.events.poll_recv(cx) {
                return Poll::Ready((index, event));
            }
        }
        Poll::Pending
    })
    .await
}
